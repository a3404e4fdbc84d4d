package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/tickgate/gateway-go/internal/orders"
	"example.com/tickgate/gateway-go/internal/testserver"
	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

const patience = 30 * time.Second // the deadline of calls that are to be answered

// server answers each request as a test says; a nil answer and no error: not before the call ends.
type server struct {
	pb.UnimplementedSignalServiceServer
	answer func(*pb.PredictRequest) (*pb.PredictResponse, error)
}

func (s *server) Predict(ctx context.Context, request *pb.PredictRequest) (*pb.PredictResponse, error) {
	answer, err := s.answer(request)
	if answer == nil && err == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return answer, err
}

func (s *server) PredictStream(
	stream grpc.BidiStreamingServer[pb.PredictStreamRequest, pb.PredictStreamResponse],
) error {
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		results := &pb.PredictStreamResponse{}
		for _, request := range message.GetRequests() {
			answer, err := s.answer(request)
			if answer == nil && err == nil {
				<-stream.Context().Done()
				return stream.Context().Err()
			}
			if status.Code(err) == codes.Aborted { // the stream itself
				return err
			}
			failure := status.Convert(err)
			id := request.GetRequestId()
			if answer != nil {
				id = answer.GetRequestId()
			}
			results.Results = append(results.Results, &pb.PredictStreamResult{
				Code: int32(failure.Code()), Message: failure.Message(), Response: answer, RequestId: id,
			})
		}
		if err := stream.Send(results); err != nil {
			return err
		}
	}
}

// approves asks for an order of each tick's own number.
func approves(request *pb.PredictRequest) (*pb.PredictResponse, error) {
	tick := request.GetTick()
	return &pb.PredictResponse{
		RequestId: request.GetRequestId(), Symbol: tick.GetSymbol(),
		Signal: &pb.Signal{
			Action: pb.Action_ACTION_BUY, Size: 1, LimitPrice: 100, ValidForUs: uint64(patience.Microseconds()), Approved: true,
			Reason: pb.Reason_REASON_APPROVED, OrderId: tick.GetSequence(),
		},
		Timing: &pb.Timing{TotalNs: 1000},
	}, nil
}

// sequence is a source of count ticks, numbered from 1; then its error, or the end.
type sequence struct {
	count int
	err   error
	given int
}

func (s *sequence) Next() (*pb.Tick, error) {
	if s.given == s.count {
		if s.err != nil {
			return nil, s.err
		}
		return nil, io.EOF
	}
	s.given++
	return &pb.Tick{Symbol: "A", ExchangeTsNs: int64(s.given), Sequence: uint64(s.given), Trade: &pb.Trade{Price: 1}}, nil
}

type activeDesk struct{}

func (activeDesk) State() pb.TradingState { return pb.TradingState_TRADING_STATE_ACTIVE }

// venue keeps the orders it is sent.
type venue struct{ ids []uint64 }

func (v *venue) Submit(order orders.Order) error {
	v.ids = append(v.ids, order.OrderID)
	return nil
}

// outcome is what a run leaves behind.
type outcome struct {
	err    error
	tally  Tally
	lines  []string
	orders []uint64
}

// played runs a gateway against a server in memory, by one method.
func played(
	ctx context.Context, t *testing.T, method string, config Config, source Source,
	answer func(*pb.PredictRequest) (*pb.PredictResponse, error),
) outcome {
	t.Helper()
	conn := testserver.Connect(t, func(s *grpc.Server) { pb.RegisterSignalServiceServer(s, &server{answer: answer}) })
	var lines strings.Builder
	sent := &venue{}
	if config.Deadline == 0 {
		config.Deadline = patience
	}
	config.InFlight = max(1, config.InFlight)
	guard := orders.NewGuard(activeDesk{}, config.Deadline)
	g := New(pb.NewSignalServiceClient(conn), config, &lines, guard, sent)
	run := g.Unary
	if method == "stream" {
		run = g.Stream
	}
	err := run(ctx, source)
	return outcome{err: err, tally: g.Tally(), lines: strings.SplitAfter(lines.String(), "\n"), orders: sent.ids}
}

// both runs a test by either method.
func both(t *testing.T, test func(t *testing.T, method string)) {
	for _, method := range []string{"unary", "stream"} {
		t.Run(method, func(t *testing.T) { test(t, method) })
	}
}

func TestEachTickIsAskedAboutOnceAndInOrder(t *testing.T) {
	for _, inFlight := range []int{1, 3, 100} {
		both(t, func(t *testing.T, method string) {
			var ids []string
			found := played(context.Background(), t, method, Config{Model: "tiny", BudgetUs: 77, InFlight: inFlight}, &sequence{count: 20}, func(request *pb.PredictRequest) (*pb.PredictResponse, error) {
				ids = append(ids, request.GetRequestId())
				if request.GetModel() != "tiny" || request.GetBudgetUs() != 77 {
					t.Errorf("found %v, expected model tiny and a budget of 77 us", request)
				}
				return approves(request)
			})
			if found.err != nil || found.tally.Sent != 20 || found.tally.Answered != 20 {
				t.Errorf("found %+v, expected 20 answers", found)
			}
			for at, id := range ids {
				if expected := fmt.Sprint(at); id != expected || !strings.HasPrefix(found.lines[at], `{"index": `+expected+`,`) {
					t.Errorf("found request %q and line %q, expected %q", id, found.lines[at], expected)
				}
			}
			if expected := []uint64{1, 2, 3}; len(ids) != 20 || !slices.Equal(found.orders[:3], expected) || len(found.orders) != 20 {
				t.Errorf("found %d requests and orders %v, expected 20 of each", len(ids), found.orders)
			}
		})
	}
}

func TestABudgetIsNeverNone(t *testing.T) {
	played(context.Background(), t, "unary", Config{Deadline: 1500 * time.Millisecond}, &sequence{count: 1},
		func(request *pb.PredictRequest) (*pb.PredictResponse, error) {
			if request.GetBudgetUs() != 1_500_000 {
				t.Errorf("found a budget of %d us, expected the deadline", request.GetBudgetUs())
			}
			return approves(request)
		})
}

func TestAFailedItemIsCountedAndTheRunGoesOn(t *testing.T) {
	both(t, func(t *testing.T, method string) {
		found := played(context.Background(), t, method, Config{}, &sequence{count: 3},
			func(request *pb.PredictRequest) (*pb.PredictResponse, error) {
				if request.GetRequestId() == "1" {
					return nil, status.Error(codes.ResourceExhausted, "too much")
				}
				return approves(request)
			})
		if found.err != nil || found.tally.Answered != 2 || !slices.Equal(found.orders, []uint64{1, 3}) {
			t.Errorf("found %+v, expected two answers", found)
		}
		if !strings.Contains(found.lines[1], `"code": "RESOURCE_EXHAUSTED"`) {
			t.Errorf("found line %q", found.lines[1])
		}
		const expected = "1 of 3 ticks were not answered: 1 RESOURCE_EXHAUSTED; the last one: too much"
		if err := found.tally.Missing(); err == nil || err.Error() != expected {
			t.Errorf("found %v, expected %q", err, expected)
		}
	})
}

func TestAModelThatIsNotThereEndsTheRun(t *testing.T) {
	both(t, func(t *testing.T, method string) {
		found := played(context.Background(), t, method, Config{}, &sequence{count: 100},
			func(*pb.PredictRequest) (*pb.PredictResponse, error) {
				return nil, status.Error(codes.NotFound, "model: none")
			})
		if found.err == nil || !strings.Contains(found.err.Error(), "tick 0 of A: NOT_FOUND: model: none") {
			t.Errorf("found %v, expected NOT_FOUND", found.err)
		}
	})
}

func TestABadRowEndsTheRunAfterTheAnswersBeforeIt(t *testing.T) {
	both(t, func(t *testing.T, method string) {
		bad := errors.New("line 4")
		found := played(context.Background(), t, method, Config{InFlight: 5}, &sequence{count: 3, err: bad}, approves)
		if !errors.Is(found.err, bad) || found.tally.Answered != 3 {
			t.Errorf("found %v after %d answers, expected %v after 3", found.err, found.tally.Answered, bad)
		}
	})
}

func TestALimitEndsTheRun(t *testing.T) {
	both(t, func(t *testing.T, method string) {
		source := &sequence{count: 10}
		found := played(context.Background(), t, method, Config{Limit: 4}, source, approves)
		if found.err != nil || found.tally.Answered != 4 || source.given != 4 {
			t.Errorf("found %+v, expected 4 answers", found)
		}
	})
}

func TestAnInterruptWaitsForTheAnswerUnderWayAndSendsNoMore(t *testing.T) {
	both(t, func(t *testing.T, method string) {
		ctx, interrupt := context.WithCancel(context.Background())
		defer interrupt()
		found := played(ctx, t, method, Config{}, &sequence{count: 1000},
			func(request *pb.PredictRequest) (*pb.PredictResponse, error) {
				if request.GetRequestId() == "4" {
					interrupt()
				}
				return approves(request)
			})
		if found.err != nil || !found.tally.Interrupted || found.tally.Sent != 5 || found.tally.Answered != 5 {
			t.Errorf("found %+v, expected 5 answers and an interrupt", found)
		}
	})
}

func TestAnAnswerThatDoesNotComeInTimeIsNoOrder(t *testing.T) {
	for _, test := range []struct{ method, err string }{
		{"unary", ""}, {"stream", "no answer on the stream in time (20ms)"},
	} {
		t.Run(test.method, func(t *testing.T) {
			found := played(context.Background(), t, test.method, Config{Deadline: 20 * time.Millisecond}, &sequence{count: 1},
				func(*pb.PredictRequest) (*pb.PredictResponse, error) { return nil, nil })
			if len(found.orders) > 0 || found.tally.Answered != 0 {
				t.Errorf("found orders %v, expected none", found.orders)
			}
			if test.err == "" && found.tally.ByStatus["DEADLINE_EXCEEDED"] != 1 {
				t.Errorf("found %v, expected DEADLINE_EXCEEDED", found.tally.ByStatus)
			}
			if test.err != "" && (found.err == nil || found.err.Error() != test.err) {
				t.Errorf("found %v, expected %q", found.err, test.err)
			}
		})
	}
}

func TestAnAnswerToAnotherRequestIsNotUsed(t *testing.T) {
	both(t, func(t *testing.T, method string) {
		found := played(context.Background(), t, method, Config{}, &sequence{count: 9},
			func(request *pb.PredictRequest) (*pb.PredictResponse, error) {
				answer, err := approves(request)
				answer.RequestId = "8"
				return answer, err
			})
		var broken *ContractError
		if !errors.As(found.err, &broken) || len(found.orders) > 0 {
			t.Errorf("found %v and orders %v, expected a ContractError and none", found.err, found.orders)
		}
	})
}

func TestAStreamThatBreaksEndsTheRunAndSaysWhy(t *testing.T) {
	found := played(context.Background(), t, "stream", Config{InFlight: 4}, &sequence{count: 1000},
		func(request *pb.PredictRequest) (*pb.PredictResponse, error) {
			if request.GetRequestId() == "5" {
				return nil, status.Error(codes.Aborted, "worker gone")
			}
			return approves(request)
		})
	if found.err == nil || !strings.Contains(found.err.Error(), "worker gone") || found.tally.Answered != 5 {
		t.Errorf("found %v after %d answers, expected the reason after 5", found.err, found.tally.Answered)
	}
	if found.tally.Missing() == nil {
		t.Error("ticks without an answer were not missed")
	}
}
