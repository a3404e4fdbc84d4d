// Package orders decides which answers become orders, and sends those.
package orders

import (
	"fmt"
	"math"
	"time"

	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

// rememberedOrders is how many order ids are kept, as many as the server keeps request ids; the oldest are forgotten.
const rememberedOrders = 65_536

// Verdict is what becomes of an answer.
type Verdict int

const (
	// Act: it may become an order.
	Act Verdict = iota
	// Hold: it asks for none.
	Hold
	// Unapproved: it names an order that did not pass the gate, or that is no whole order.
	Unapproved
	// Repeated: the server has given it before, or its order is known.
	Repeated
	// Late: it came after the call's deadline.
	Late
	// Expired: it may not be valid any more.
	Expired
	// Halted: the trading state is HALTED, or it is not known.
	Halted
	// OnlyReducing: the trading state is REDUCING, and the order does not reduce.
	OnlyReducing
)

var verdictNames = [...]string{"act", "hold", "unapproved", "repeated", "late", "expired", "halted", "only reducing"}

func (v Verdict) String() string {
	if v < 0 || int(v) >= len(verdictNames) {
		return fmt.Sprintf("Verdict(%d)", int(v))
	}
	return verdictNames[v]
}

// TradingState says what the desk lets through; TRADING_STATE_UNSPECIFIED where it is not known.
type TradingState interface {
	State() pb.TradingState
}

// Guard judges answers: whatever it is not sure of does not become an order. It is not safe for concurrent use.
type Guard struct {
	desk     TradingState
	deadline time.Duration
	known    map[uint64]struct{}
	order    []uint64 // of known, a ring
	next     int
}

// NewGuard returns a Guard for answers to calls with this deadline.
func NewGuard(desk TradingState, deadline time.Duration) *Guard {
	return &Guard{desk: desk, deadline: deadline, known: make(map[uint64]struct{}, rememberedOrders)}
}

// Judge says whether the answer to a call that began at sent may become an order now.
//
// Its validity is counted from when the call began, on this machine's monotonic clock. The server counts from when it
// sent the answer, which is later: an order is never sent after its time, however far apart the two wall clocks are.
func (g *Guard) Judge(response *pb.PredictResponse, sent, now time.Time) Verdict {
	signal := response.GetSignal()
	if action := signal.GetAction(); action != pb.Action_ACTION_BUY && action != pb.Action_ACTION_SELL {
		return Hold
	}
	if !approved(signal) {
		return Unapproved
	}
	// Kept even if it is held back below: what was not sent in its time is not sent later.
	if known := g.remember(signal.GetOrderId()); known || response.GetRepeated() {
		return Repeated
	}
	took := now.Sub(sent)
	if took > g.deadline {
		return Late
	}
	if microseconds := signal.GetValidForUs(); took < 0 || uint64(took.Microseconds()) >= microseconds {
		return Expired
	}
	switch g.desk.State() {
	case pb.TradingState_TRADING_STATE_ACTIVE:
		return Act
	case pb.TradingState_TRADING_STATE_REDUCING:
		if signal.GetReducing() {
			return Act
		}
		return OnlyReducing
	default:
		return Halted
	}
}

func approved(signal *pb.Signal) bool {
	return signal.GetApproved() && signal.GetReason() == pb.Reason_REASON_APPROVED && signal.GetOrderId() != 0 &&
		positive(signal.GetSize()) && positive(signal.GetLimitPrice())
}

func positive(number float64) bool {
	return number > 0 && !math.IsInf(number, 1) // a NaN is not
}

// remember keeps an order's id, and says whether it was kept before.
func (g *Guard) remember(id uint64) bool {
	if _, known := g.known[id]; known {
		return true
	}
	if len(g.order) < rememberedOrders {
		g.order = append(g.order, id)
	} else {
		delete(g.known, g.order[g.next])
		g.order[g.next] = id
		g.next = (g.next + 1) % rememberedOrders
	}
	g.known[id] = struct{}{}
	return false
}
