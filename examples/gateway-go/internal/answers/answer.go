// Package answers is what the server said to each tick, and how that is written down: the columns and the bytes of
// `tickgate replay-ticks --out`, so that `cmp` compares two gateways.
package answers

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"

	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

// Answer is one tick's answer.
type Answer struct {
	// Index is the tick's place in the file, from 0.
	Index     int
	RequestID string
	// Symbol is the tick's.
	Symbol string
	Code   codes.Code
	// Message says what was wrong; empty for OK.
	Message string
	// Response is nil where Code is not OK.
	Response *pb.PredictResponse
}

// CodeName is the contract's name of a status: DEADLINE_EXCEEDED.
func CodeName(status codes.Code) string {
	return code.Code(status).String()
}

// ActionName is the action without the enum's prefix; the number of one that this version does not know.
func ActionName(action pb.Action) string {
	return strings.TrimPrefix(action.String(), "ACTION_")
}

// ReasonName is the reason without the enum's prefix; the number of one that this version does not know.
func ReasonName(reason pb.Reason) string {
	return strings.TrimPrefix(reason.String(), "REASON_")
}

// AppendLine appends the answer as one line of JSON, without timing: the same answers give the same bytes.
//
// Numbers that JSON has no word for are "NaN", "Infinity" and "-Infinity", as in protobuf's JSON.
func AppendLine(line []byte, answer Answer) []byte {
	o := object{bytes: append(line, '{')}
	o.integer("index", int64(answer.Index))
	o.text("code", CodeName(answer.Code))
	o.text("request_id", answer.RequestID)
	o.text("symbol", answer.Symbol)
	o.signal(answer.Response)
	o.prediction(answer.Response.GetPrediction())
	if answer.Response != nil {
		model := answer.Response.GetModel()
		o.text("model_name", model.GetName())
		o.unsigned("model_version", model.GetVersion())
	} else {
		o.nulls("model_name", "model_version")
	}
	o.checks(answer.Response.GetSignal().GetChecks())
	return append(o.bytes, '}', '\n')
}

// object is a JSON object as Python's json.dumps writes it.
type object struct {
	bytes []byte
	begun bool
}

func (o *object) signal(response *pb.PredictResponse) {
	if response == nil {
		o.nulls("action", "size", "limit_price", "approved", "reason", "target_position")
		return
	}
	signal := response.GetSignal()
	o.text("action", ActionName(signal.GetAction()))
	o.number("size", signal.GetSize())
	o.number("limit_price", signal.GetLimitPrice())
	o.boolean("approved", signal.GetApproved())
	o.text("reason", ReasonName(signal.GetReason()))
	o.number("target_position", signal.GetTargetPosition())
}

func (o *object) prediction(prediction *pb.Prediction) {
	if prediction == nil {
		o.nulls("value", "confidence")
		return
	}
	o.number("value", prediction.GetValue())
	o.number("confidence", prediction.GetConfidence())
}

func (o *object) checks(checks []*pb.RiskCheck) {
	o.key("checks")
	o.bytes = append(o.bytes, '[')
	for at, check := range checks {
		if at > 0 {
			o.bytes = append(o.bytes, ", "...)
		}
		item := object{bytes: append(o.bytes, '{')}
		item.text("reason", ReasonName(check.GetReason()))
		item.number("value", check.GetValue())
		item.number("limit", check.GetLimit())
		item.boolean("at_least", check.GetAtLeast())
		item.boolean("passed", check.GetPassed())
		o.bytes = append(item.bytes, '}')
	}
	o.bytes = append(o.bytes, ']')
}

func (o *object) key(name string) {
	if o.begun {
		o.bytes = append(o.bytes, ", "...)
	}
	o.begun = true
	o.bytes = appendText(o.bytes, name)
	o.bytes = append(o.bytes, ": "...)
}

func (o *object) text(name, value string) {
	o.key(name)
	o.bytes = appendText(o.bytes, value)
}

func (o *object) number(name string, value float64) {
	o.key(name)
	o.bytes = appendNumber(o.bytes, value)
}

func (o *object) integer(name string, value int64) {
	o.key(name)
	o.bytes = strconv.AppendInt(o.bytes, value, 10)
}

func (o *object) unsigned(name string, value uint64) {
	o.key(name)
	o.bytes = strconv.AppendUint(o.bytes, value, 10)
}

func (o *object) boolean(name string, value bool) {
	o.key(name)
	o.bytes = strconv.AppendBool(o.bytes, value)
}

func (o *object) nulls(names ...string) {
	for _, name := range names {
		o.key(name)
		o.bytes = append(o.bytes, "null"...)
	}
}

// appendNumber writes a float as Python's repr does: the shortest digits that read back as the same number, an exponent
// below 1e-4 and from 1e16 on, and ".0" behind what would look like an integer.
func appendNumber(out []byte, value float64) []byte {
	switch {
	case math.IsNaN(value):
		return append(out, `"NaN"`...)
	case math.IsInf(value, 1):
		return append(out, `"Infinity"`...)
	case math.IsInf(value, -1):
		return append(out, `"-Infinity"`...)
	}
	if size := math.Abs(value); size != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.AppendFloat(out, value, 'e', -1, 64)
	}
	begin := len(out)
	out = strconv.AppendFloat(out, value, 'f', -1, 64)
	if bytes.IndexByte(out[begin:], '.') < 0 {
		out = append(out, ".0"...)
	}
	return out
}

// appendText writes a string in ASCII, as Python's json.dumps does.
func appendText(out []byte, text string) []byte {
	out = append(out, '"')
	for _, char := range text {
		switch {
		case char == '"' || char == '\\':
			out = append(out, '\\', byte(char))
		case char == '\n':
			out = append(out, `\n`...)
		case char == '\r':
			out = append(out, `\r`...)
		case char == '\t':
			out = append(out, `\t`...)
		case char == '\b':
			out = append(out, `\b`...)
		case char == '\f':
			out = append(out, `\f`...)
		case ' ' <= char && char <= '~':
			out = append(out, byte(char))
		case char > 0xffff:
			high, low := utf16.EncodeRune(char)
			out = appendEscape(appendEscape(out, high), low)
		default:
			out = appendEscape(out, char)
		}
	}
	return append(out, '"')
}

func appendEscape(out []byte, unit rune) []byte {
	const digits = "0123456789abcdef"
	return append(out, '\\', 'u', digits[unit>>12&15], digits[unit>>8&15], digits[unit>>4&15], digits[unit&15])
}
