// Package desk knows the trading state, as the server's service listener tells it.
package desk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

// Waits between two tries to watch again: doubling from the first to the last.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = time.Second
)

// Log is told what the desk does, a line at a time.
type Log func(format string, arguments ...any)

// Watch follows WatchTradingState. While its stream is lost the state is not known, which whoever asks has to count as
// halted; it is watched anew until its context ends. Safe for concurrent use.
type Watch struct {
	client pb.PortfolioServiceClient
	log    Log
	state  atomic.Int32
	told   chan struct{} // closed with the first state
	once   sync.Once
	lost   atomic.Pointer[error] // why the last stream ended
}

// Follow begins to watch, until ctx ends.
func Follow(ctx context.Context, client pb.PortfolioServiceClient, log Log) *Watch {
	w := &Watch{client: client, log: log, told: make(chan struct{})}
	go w.run(ctx)
	return w
}

// State is the one that holds now; TRADING_STATE_UNSPECIFIED while it is not known.
func (w *Watch) State() pb.TradingState {
	return pb.TradingState(w.state.Load())
}

// Wait waits for the first state, until ctx ends.
func (w *Watch) Wait(ctx context.Context) error {
	select {
	case <-w.told:
		return nil
	case <-ctx.Done():
		if lost := w.lost.Load(); lost != nil {
			return fmt.Errorf("no trading state: %w", *lost)
		}
		return fmt.Errorf("no trading state: %w", context.Cause(ctx))
	}
}

func (w *Watch) run(ctx context.Context) {
	wait := firstWait
	for {
		heard, err := w.stream(ctx)
		w.state.Store(int32(pb.TradingState_TRADING_STATE_UNSPECIFIED))
		if ctx.Err() != nil {
			return
		}
		w.lost.Store(&err)
		if heard { // said once, not at each try
			wait = firstWait
			w.log("trading state: not known, which counts as HALTED: %v", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, lastWait)
	}
}

// stream follows one stream to its end, and says why it ended and whether it told a state.
func (w *Watch) stream(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	states, err := w.client.WatchTradingState(ctx, &pb.WatchTradingStateRequest{})
	if err != nil {
		return false, err
	}
	for {
		answer, err := states.Recv()
		if errors.Is(err, io.EOF) {
			return heard, errors.New("the server ended the watch")
		}
		if err != nil {
			return heard, err
		}
		heard = true
		state := answer.GetDesk()
		w.state.Store(int32(state.GetState()))
		w.log("trading state: %s", describe(state))
		w.once.Do(func() { close(w.told) })
	}
}

func describe(state *pb.DeskState) string {
	text := state.GetState().String()
	if who := state.GetWho(); who != "" {
		text += ", set by " + who
	}
	if reason := state.GetReason(); reason != "" {
		text += ": " + reason
	}
	return text
}
