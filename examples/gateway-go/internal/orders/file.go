package orders

import (
	"encoding/json"
	"fmt"
	"io"

	"example.com/tickgate/gateway-go/internal/answers"
	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

// Order is what goes to a venue: immediate or cancel, so that none is left working when the desk is halted.
type Order struct {
	OrderID    uint64  `json:"order_id"`
	RequestID  string  `json:"request_id"`
	Symbol     string  `json:"symbol"`
	Side       string  `json:"side"`
	Size       float64 `json:"size"`
	LimitPrice float64 `json:"limit_price"`
	Reducing   bool    `json:"reducing"`
}

// Of makes the order that an answer asks for.
func Of(response *pb.PredictResponse) Order {
	signal := response.GetSignal()
	return Order{
		OrderID: signal.GetOrderId(), RequestID: response.GetRequestId(), Symbol: response.GetSymbol(),
		Side: answers.ActionName(signal.GetAction()), Size: signal.GetSize(), LimitPrice: signal.GetLimitPrice(),
		Reducing: signal.GetReducing(),
	}
}

// Venue takes orders.
type Venue interface {
	Submit(Order) error
}

// File is a venue that writes each order as a line of JSON: what a session with an exchange stands in for here.
type File struct {
	lines *json.Encoder
}

// NewFile returns a File that writes to out.
func NewFile(out io.Writer) *File {
	return &File{lines: json.NewEncoder(out)}
}

// Submit writes the order down.
func (f *File) Submit(order Order) error {
	if err := f.lines.Encode(order); err != nil {
		return fmt.Errorf("order %d: %w", order.OrderID, err)
	}
	return nil
}
