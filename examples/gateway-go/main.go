// The gateway of a desk that trades on tickgate's signals, in Go: an example, built from the contract alone.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"example.com/tickgate/gateway-go/internal/desk"
	"example.com/tickgate/gateway-go/internal/dial"
	"example.com/tickgate/gateway-go/internal/gateway"
	"example.com/tickgate/gateway-go/internal/orders"
	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
	"example.com/tickgate/gateway-go/internal/ticks"
)

const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitBreached    = 3
	exitInterrupted = 130 // as a shell tells of SIGINT
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal ends the run cleanly, a second one at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program but for its process; it returns the exit status.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	o, err := parseOptions(arguments, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		return exitUsage
	}
	say := func(format string, arguments ...any) { fmt.Fprintf(stderr, "gateway: "+format+"\n", arguments...) }
	g, err := execute(ctx, o, say)
	if g == nil && ctx.Err() != nil {
		say("interrupted before the first tick")
		return exitInterrupted
	}
	if g == nil {
		say("%v", err)
		return exitFailed
	}
	result := newResult(g, o)
	if failure := result.print(stdout); failure != nil {
		err = errors.Join(err, failure)
	}
	if err == nil {
		err = result.Missing()
	}
	switch {
	case err != nil:
		say("%v", err)
		return exitFailed
	case result.Interrupted:
		say("interrupted after %d ticks", result.Sent)
		return exitInterrupted
	case len(result.Breaches) > 0:
		for _, breach := range result.Breaches {
			say("SLA breached: %s", breach)
		}
		return exitBreached
	}
	return exitOK
}

// execute makes the run; the gateway is nil if it did not begin.
func execute(ctx context.Context, o *options, say desk.Log) (_ *gateway.Gateway, err error) {
	source, err := ticks.Open(o.ticks)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()

	transport, err := o.tls.Credentials()
	if err != nil {
		return nil, err
	}
	conn, err := dial.Open(o.target, transport)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := dial.WaitServing(ctx, conn, o.connectTimeout); err != nil {
		return nil, err
	}

	var guard *orders.Guard
	if o.service != "" {
		service, err := dial.Open(o.service, transport)
		if err != nil {
			return nil, err
		}
		defer service.Close()
		watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		watch := desk.Follow(watching, pb.NewPortfolioServiceClient(service), say)
		if err := firstState(ctx, watch, o); err != nil {
			return nil, err
		}
		guard = orders.NewGuard(watch, o.calls.Deadline)
	}

	lines, closeLines, err := create(o.out)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeLines()) }()
	var venue orders.Venue
	if o.orders != "" {
		file, err := os.Create(o.orders) // not buffered: an order leaves at once
		if err != nil {
			return nil, err
		}
		defer file.Close()
		venue = orders.NewFile(file)
	}

	g := gateway.New(pb.NewSignalServiceClient(conn), o.calls, lines, guard, venue)
	if o.stream {
		return g, g.Stream(ctx, source)
	}
	return g, g.Unary(ctx, source)
}

// firstState waits until the trading state is known, so that the first orders are not held back for want of it.
func firstState(ctx context.Context, watch *desk.Watch, o *options) error {
	ctx, cancel := context.WithTimeout(ctx, o.connectTimeout)
	defer cancel()
	if err := watch.Wait(ctx); err != nil {
		return fmt.Errorf("service listener %s: %w", o.service, err)
	}
	return nil
}

// create opens a file to write to, buffered, and says how to close it; without a path there is none.
func create(path string) (io.Writer, func() error, error) {
	if path == "" {
		return nil, func() error { return nil }, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, nil, err
	}
	buffered := bufio.NewWriter(file)
	return buffered, func() error { return errors.Join(buffered.Flush(), file.Close()) }, nil
}
