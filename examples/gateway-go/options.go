package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"example.com/tickgate/gateway-go/internal/dial"
	"example.com/tickgate/gateway-go/internal/gateway"
	"example.com/tickgate/gateway-go/internal/latency"
)

const (
	maxInFlight = 1024 // as tickgate's own client
	maxPrefix   = 17   // of a request id's 36 bytes, so that any number fits behind it
)

const usage = `usage: gateway -target HOST:PORT [flags] TICKS

Sends recorded ticks to a tickgate server, keeps its signals, and sends on as orders those that may be acted on.
TICKS is a file as ` + "`tickgate replay-ticks --format csv`" + ` reads it, gzipped if its name ends in .gz.

exit status: 0 every tick was answered, 1 it was not or something failed, 2 usage, 3 the SLA was breached,
130 interrupted

`

// options are the command line.
type options struct {
	ticks          string
	target         string
	service        string
	orders         string
	out            string
	stream         bool
	json           bool
	connectTimeout time.Duration
	sla            latency.SLA
	tls            dial.TLS
	calls          gateway.Config
}

// parseOptions reads the command line; flag.ErrHelp if it asks for help. What is wrong has been said to stderr.
func parseOptions(arguments []string, stderr io.Writer) (*options, error) {
	o := &options{}
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&o.target, "target", "", "`address` of the data listener: host:port or unix:/path")
	flags.StringVar(&o.service, "service", "", "`address` of the service listener, whose trading state is watched")
	flags.StringVar(&o.orders, "orders", "", "write each order as a line of JSON to this `file`; needs -service")
	flags.StringVar(&o.out, "out", "", "write each answer as a line of JSON to this `file`, as replay-ticks --out does")
	flags.StringVar(&o.calls.Model, "model", "", "`name`, name@alias or name:version; the server's default if not given")
	flags.Uint64Var(&o.calls.BudgetUs, "budget-us", 0,
		"what the server may take from arrival to answer, in `microseconds`; 0: as long as the deadline")
	flags.DurationVar(&o.calls.Deadline, "deadline", time.Second, "of a call; on a stream, of each message's answer")
	flags.BoolVar(&o.stream, "stream", false, "over one PredictStream instead of one Predict a tick")
	flags.IntVar(&o.calls.InFlight, "in-flight", 1, "`messages` of the stream that may wait for their answers")
	flags.StringVar(&o.calls.IDPrefix, "id-prefix", "",
		"`text` before the number in request ids, so that another run's are not taken for repeats")
	flags.IntVar(&o.calls.Limit, "limit", 0, "`ticks` to send at most; 0: all")
	flags.DurationVar(&o.connectTimeout, "connect-timeout", 5*time.Second, "longest wait for the server, and its state")
	flags.Var(&o.sla, "sla", "`bounds` of the round trip, such as p50=1ms,p99=5ms,p99.9=20ms,max=100ms")
	flags.BoolVar(&o.json, "json", false, "print the result as JSON")
	flags.StringVar(&o.tls.CA, "tls-ca", "", "speak TLS, with a server whose certificate this PEM `file` signed")
	flags.StringVar(&o.tls.Certificate, "tls-certificate", "", "own certificate, a PEM `file`, if the server asks for one")
	flags.StringVar(&o.tls.Key, "tls-key", "", "its private key, a PEM `file`")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if flags.NArg() == 1 {
		o.ticks = flags.Arg(0)
	}
	if err := o.check(flags.NArg()); err != nil {
		fmt.Fprintf(stderr, "gateway: %v; -h for help\n", err)
		return nil, err
	}
	return o, nil
}

func (o *options) check(files int) error {
	switch {
	case files != 1:
		return fmt.Errorf("found %d files of ticks, expected one, behind the flags", files)
	case o.target == "":
		return errors.New("-target is missing")
	case o.orders != "" && o.service == "":
		return errors.New("-orders needs -service: orders are sent only while the trading state is known")
	case o.calls.Deadline < time.Microsecond:
		return fmt.Errorf("-deadline is %v, must be 1us or more", o.calls.Deadline)
	case o.connectTimeout <= 0:
		return fmt.Errorf("-connect-timeout is %v, must be positive", o.connectTimeout)
	case o.calls.InFlight < 1 || o.calls.InFlight > maxInFlight:
		return fmt.Errorf("-in-flight is %d, must be 1 to %d messages", o.calls.InFlight, maxInFlight)
	case o.calls.InFlight > 1 && !o.stream:
		return errors.New("-in-flight is for -stream: one Predict carries one tick")
	case len(o.calls.IDPrefix) > maxPrefix:
		return fmt.Errorf("-id-prefix is %d bytes long, must be %d at most", len(o.calls.IDPrefix), maxPrefix)
	case o.calls.Limit < 0:
		return fmt.Errorf("-limit is %d, must not be negative", o.calls.Limit)
	}
	return nil
}
