package orders

import (
	"math"
	"strings"
	"testing"
	"time"

	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

const deadline = 20 * time.Millisecond

// fixed is a desk whose state does not change.
type fixed pb.TradingState

func (f fixed) State() pb.TradingState { return pb.TradingState(f) }

func approvedAnswer() *pb.PredictResponse {
	return &pb.PredictResponse{
		RequestId: "1", Symbol: "A",
		Signal: &pb.Signal{
			Action: pb.Action_ACTION_SELL, Size: 2, LimitPrice: 99.5, ValidForUs: 10_000, Approved: true,
			Reason: pb.Reason_REASON_APPROVED, OrderId: 7,
		},
	}
}

func TestOnlyWhatIsBeyondDoubtBecomesAnOrder(t *testing.T) {
	const (
		active   = fixed(pb.TradingState_TRADING_STATE_ACTIVE)
		reducing = fixed(pb.TradingState_TRADING_STATE_REDUCING)
		halted   = fixed(pb.TradingState_TRADING_STATE_HALTED)
		unknown  = fixed(pb.TradingState_TRADING_STATE_UNSPECIFIED)
	)
	for _, test := range []struct {
		name     string
		change   func(*pb.PredictResponse)
		took     time.Duration
		desk     fixed
		expected Verdict
	}{
		{"approved", func(*pb.PredictResponse) {}, time.Millisecond, active, Act},
		{"hold", func(r *pb.PredictResponse) { r.Signal.Action = pb.Action_ACTION_HOLD }, 0, active, Hold},
		{"no signal", func(r *pb.PredictResponse) { r.Signal = nil }, 0, active, Hold},
		{"an unknown action", func(r *pb.PredictResponse) { r.Signal.Action = 9 }, 0, active, Hold},
		{"not approved", func(r *pb.PredictResponse) { r.Signal.Approved = false }, 0, active, Unapproved},
		{"approved against its reason", func(r *pb.PredictResponse) {
			r.Signal.Reason = pb.Reason_REASON_PRICE_COLLAR
		}, 0, active, Unapproved},
		{"no order id", func(r *pb.PredictResponse) { r.Signal.OrderId = 0 }, 0, active, Unapproved},
		{"size 0", func(r *pb.PredictResponse) { r.Signal.Size = 0 }, 0, active, Unapproved},
		{"size NaN", func(r *pb.PredictResponse) { r.Signal.Size = math.NaN() }, 0, active, Unapproved},
		{"size infinite", func(r *pb.PredictResponse) { r.Signal.Size = math.Inf(1) }, 0, active, Unapproved},
		{"price NaN", func(r *pb.PredictResponse) { r.Signal.LimitPrice = math.NaN() }, 0, active, Unapproved},
		{"price negative", func(r *pb.PredictResponse) { r.Signal.LimitPrice = -1 }, 0, active, Unapproved},
		{"repeated by the server", func(r *pb.PredictResponse) { r.Repeated = true }, 0, active, Repeated},
		{"just valid", func(*pb.PredictResponse) {}, 10*time.Millisecond - time.Microsecond, active, Act},
		{"just expired", func(*pb.PredictResponse) {}, 10 * time.Millisecond, active, Expired},
		{"valid for nothing", func(r *pb.PredictResponse) { r.Signal.ValidForUs = 0 }, 0, active, Expired},
		{"valid for ever", func(r *pb.PredictResponse) {
			r.Signal.ValidForUs = math.MaxUint64
		}, time.Millisecond, active, Act},
		{"a clock that went back", func(*pb.PredictResponse) {}, -time.Millisecond, active, Expired},
		{"just in time", func(r *pb.PredictResponse) { r.Signal.ValidForUs = 1e9 }, deadline, active, Act},
		{"late", func(r *pb.PredictResponse) { r.Signal.ValidForUs = 1e9 }, deadline + 1, active, Late},
		{"halted", func(*pb.PredictResponse) {}, 0, halted, Halted},
		{"halted, and reducing", func(r *pb.PredictResponse) { r.Signal.Reducing = true }, 0, halted, Halted},
		{"state not known", func(*pb.PredictResponse) {}, 0, unknown, Halted},
		{"a state of another version", func(*pb.PredictResponse) {}, 0, 9, Halted},
		{"more risk while reducing", func(*pb.PredictResponse) {}, 0, reducing, OnlyReducing},
		{"less risk while reducing", func(r *pb.PredictResponse) { r.Signal.Reducing = true }, 0, reducing, Act},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := approvedAnswer()
			test.change(answer)
			sent := time.Now()
			if found := NewGuard(test.desk, deadline).Judge(answer, sent, sent.Add(test.took)); found != test.expected {
				t.Errorf("found %v, expected %v", found, test.expected)
			}
		})
	}
}

func TestAnOrderIsSentOnceHoweverOftenItIsAnswered(t *testing.T) {
	guard, now := NewGuard(fixed(pb.TradingState_TRADING_STATE_ACTIVE), deadline), time.Now()
	first, other := approvedAnswer(), approvedAnswer()
	other.Signal.OrderId = 8
	for at, test := range []struct {
		answer   *pb.PredictResponse
		expected Verdict
	}{{first, Act}, {other, Act}, {first, Repeated}, {other, Repeated}} {
		if found := guard.Judge(test.answer, now, now); found != test.expected {
			t.Errorf("answer %d: found %v, expected %v", at, found, test.expected)
		}
	}
}

func TestWhatWasHeldBackIsNotSentLater(t *testing.T) {
	desk := fixed(pb.TradingState_TRADING_STATE_HALTED)
	guard, now := NewGuard(&desk, deadline), time.Now()
	if found := guard.Judge(approvedAnswer(), now, now); found != Halted {
		t.Fatalf("found %v, expected %v", found, Halted)
	}
	desk = fixed(pb.TradingState_TRADING_STATE_ACTIVE)
	if found := guard.Judge(approvedAnswer(), now, now); found != Repeated {
		t.Errorf("found %v, expected %v", found, Repeated)
	}
}

func TestTheOldestOrderIsForgottenAtTheBound(t *testing.T) {
	guard := NewGuard(fixed(pb.TradingState_TRADING_STATE_ACTIVE), deadline)
	for id := range uint64(rememberedOrders + 2) {
		if guard.remember(id + 1) {
			t.Fatalf("order %d was known", id+1)
		}
	}
	if !guard.remember(3) || !guard.remember(rememberedOrders+2) {
		t.Error("an order among the latest was forgotten")
	}
	if guard.remember(1) || len(guard.known) != rememberedOrders {
		t.Errorf("the oldest order was kept, among %d", len(guard.known))
	}
}

func TestAnOrderIsWrittenAsALineOfJSON(t *testing.T) {
	var out strings.Builder
	answer := approvedAnswer()
	if err := NewFile(&out).Submit(Of(answer)); err != nil {
		t.Fatal(err)
	}
	const expected = `{"order_id":7,"request_id":"1","symbol":"A","side":"SELL","size":2,"limit_price":99.5,"reducing":false}` + "\n"
	if out.String() != expected {
		t.Errorf("found %s expected %s", out.String(), expected)
	}
}
