package answers

import (
	"math"
	"testing"

	"google.golang.org/grpc/codes"

	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

func TestNumbersAreWrittenAsPythonWritesThem(t *testing.T) {
	for _, test := range []struct {
		value    float64
		expected string
	}{
		{0, "0.0"}, {math.Copysign(0, -1), "-0.0"}, {1, "1.0"}, {-2.5, "-2.5"}, {0.1, "0.1"}, {1e-4, "0.0001"},
		{0.00012345, "0.00012345"}, {9.9999e-5, "9.9999e-05"}, {1e-5, "1e-05"}, {5e-324, "5e-324"},
		{1e15, "1000000000000000.0"}, {1e16, "1e+16"}, {123456789012345680, "1.2345678901234568e+17"},
		{math.MaxFloat64, "1.7976931348623157e+308"}, {1.0 / 3, "0.3333333333333333"}, {60845.270000000004, "60845.270000000004"},
		{math.NaN(), `"NaN"`}, {math.Inf(1), `"Infinity"`}, {math.Inf(-1), `"-Infinity"`},
	} {
		if found := string(appendNumber(nil, test.value)); found != test.expected {
			t.Errorf("%g: found %s, expected %s", test.value, found, test.expected)
		}
	}
}

func TestTextIsWrittenAsPythonWritesIt(t *testing.T) {
	for _, test := range []struct{ text, expected string }{
		{"BTCUSDT", `"BTCUSDT"`}, {"", `""`}, {`a"b\c/`, `"a\"b\\c/"`}, {"\n\r\t\b\f", `"\n\r\t\b\f"`},
		{"\x00\x7f", `"\u0000\u007f"`}, {"é", `"\u00e9"`}, {"😀", `"\ud83d\ude00"`},
	} {
		if found := string(appendText(nil, test.text)); found != test.expected {
			t.Errorf("%q: found %s, expected %s", test.text, found, test.expected)
		}
	}
}

func TestALineHasTheColumnsOfReplayTicks(t *testing.T) {
	response := &pb.PredictResponse{
		RequestId: "7", Symbol: "A",
		Signal: &pb.Signal{
			Action: pb.Action_ACTION_BUY, Size: 0.5, LimitPrice: 101, Approved: true, Reason: pb.Reason_REASON_APPROVED,
			TargetPosition: 0.5, OrderId: 9,
			Checks: []*pb.RiskCheck{
				{Reason: pb.Reason_REASON_CONFIDENCE_BELOW_THRESHOLD, Value: 0.6, Limit: 0.55, Passed: true, AtLeast: true},
				{Reason: pb.Reason(999), Value: math.NaN(), Limit: math.Inf(1)},
			},
		},
		Prediction: &pb.Prediction{Value: 0.2, Confidence: 0.6},
		Model:      &pb.ModelVersion{Name: "tiny", Version: 3},
	}
	for _, test := range []struct {
		name     string
		answer   Answer
		expected string
	}{
		{
			"a signal", Answer{Index: 7, RequestID: "7", Symbol: "A", Response: response},
			`{"index": 7, "code": "OK", "request_id": "7", "symbol": "A", "action": "BUY", "size": 0.5, "limit_price": 101.0, ` +
				`"approved": true, "reason": "APPROVED", "target_position": 0.5, "value": 0.2, "confidence": 0.6, ` +
				`"model_name": "tiny", "model_version": 3, "checks": [{"reason": "CONFIDENCE_BELOW_THRESHOLD", "value": 0.6, ` +
				`"limit": 0.55, "at_least": true, "passed": true}, {"reason": "999", "value": "NaN", "limit": "Infinity", ` +
				`"at_least": false, "passed": false}]}` + "\n",
		},
		{
			"no answer", Answer{Index: 0, RequestID: "run-0", Symbol: "A", Code: codes.DeadlineExceeded, Message: "late"},
			`{"index": 0, "code": "DEADLINE_EXCEEDED", "request_id": "run-0", "symbol": "A", "action": null, "size": null, ` +
				`"limit_price": null, "approved": null, "reason": null, "target_position": null, "value": null, ` +
				`"confidence": null, "model_name": null, "model_version": null, "checks": []}` + "\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if found := string(AppendLine(nil, test.answer)); found != test.expected {
				t.Errorf("found\n%s expected\n%s", found, test.expected)
			}
		})
	}
}
