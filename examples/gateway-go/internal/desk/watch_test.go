package desk

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/tickgate/gateway-go/internal/testserver"
	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

const (
	active  = pb.TradingState_TRADING_STATE_ACTIVE
	halted  = pb.TradingState_TRADING_STATE_HALTED
	unknown = pb.TradingState_TRADING_STATE_UNSPECIFIED
)

const patience = 30 * time.Second // before a test gives up

// told is a service whose watch tells what it is given; an error ends the stream with it.
type told struct {
	pb.UnimplementedPortfolioServiceServer
	steps chan any // pb.DeskState or error
}

func (s *told) WatchTradingState(
	_ *pb.WatchTradingStateRequest, stream grpc.ServerStreamingServer[pb.WatchTradingStateResponse],
) error {
	for {
		select {
		case step := <-s.steps:
			switch step := step.(type) {
			case *pb.DeskState:
				if err := stream.Send(&pb.WatchTradingStateResponse{Desk: step}); err != nil {
					return err
				}
			case error:
				return step
			default: // nil: the server drains
				return nil
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// follow watches a service whose steps the test gives; each line of the log comes when the state is as it says.
func follow(t *testing.T) (*Watch, chan<- any, <-chan string) {
	t.Helper()
	service := &told{steps: make(chan any)}
	conn := testserver.Connect(t, func(server *grpc.Server) { pb.RegisterPortfolioServiceServer(server, service) })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	log := make(chan string, 16)
	watch := Follow(ctx, pb.NewPortfolioServiceClient(conn), func(format string, arguments ...any) {
		log <- fmt.Sprintf(format, arguments...)
	})
	return watch, service.steps, log
}

func TestTheStateIsTheLatestTold(t *testing.T) {
	watch, steps, log := follow(t)
	if watch.State() != unknown {
		t.Errorf("before the first answer: found %v, expected %v", watch.State(), unknown)
	}
	steps <- &pb.DeskState{State: active}
	expect(t, watch, log, active, "TRADING_STATE_ACTIVE")
	steps <- &pb.DeskState{State: halted, Who: "risk", Reason: "feed is wrong"}
	expect(t, watch, log, halted, "TRADING_STATE_HALTED, set by risk: feed is wrong")
}

func TestALostWatchIsNotKnownUntilTheServerTellsAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		end  any
		said string
	}{
		{"broken", status.Error(codes.Unavailable, "gone"), "gone"},
		{"ended", nil, "the server ended the watch"},
	} {
		t.Run(test.name, func(t *testing.T) {
			watch, steps, log := follow(t)
			steps <- &pb.DeskState{State: active}
			expect(t, watch, log, active, "ACTIVE")
			steps <- test.end
			expect(t, watch, log, unknown, test.said)
			steps <- &pb.DeskState{State: active}
			expect(t, watch, log, active, "ACTIVE")
		})
	}
}

func TestAServiceThatNeverTellsIsAnErrorThatSaysWhy(t *testing.T) {
	watch, steps, log := follow(t)
	for range 2 { // the second is taken when the first has been seen
		steps <- status.Error(codes.Unavailable, "gone")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := watch.Wait(ctx); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("found %v, expected the reason", err)
	}
	if watch.State() != unknown || len(log) > 0 {
		t.Errorf("found %v and %d lines, expected no state and nothing said", watch.State(), len(log))
	}
}

func expect(t *testing.T, watch *Watch, log <-chan string, state pb.TradingState, said string) {
	t.Helper()
	select {
	case line := <-log:
		if watch.State() != state || !strings.Contains(line, said) {
			t.Errorf("found %v and %q, expected %v and %q", watch.State(), line, state, said)
		}
	case <-time.After(patience):
		t.Fatalf("nothing was said, expected %q", said)
	}
}
