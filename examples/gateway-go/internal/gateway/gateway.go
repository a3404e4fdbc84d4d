// Package gateway asks a server for a signal after each tick and does what the answers allow.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/tickgate/gateway-go/internal/answers"
	"example.com/tickgate/gateway-go/internal/latency"
	"example.com/tickgate/gateway-go/internal/orders"
	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

// hopeless are the statuses after which no later call can do better: a model that is not there, a caller who may not ask.
var hopeless = []codes.Code{codes.NotFound, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented}

// Source gives ticks, and io.EOF after the last one.
type Source interface {
	Next() (*pb.Tick, error)
}

// Config is what every call has in common.
type Config struct {
	// Model is `name`, `name@alias` or `name:version`; empty: the server's default.
	Model string
	// BudgetUs is what the server may take from arrival to answer, in microseconds; 0: as long as Deadline.
	BudgetUs uint64
	// Deadline of a call; on a stream, of each message's answer.
	Deadline time.Duration
	// InFlight is how many messages of a stream may wait for their answers; latencies are honest at 1.
	InFlight int
	// IDPrefix stands before a tick's number in its request id, so that another run's ids are not taken for repeats.
	IDPrefix string
	// Limit is how many ticks are sent at most; 0: all.
	Limit int
}

// Gateway sends ticks in order over one connection. It is for one run.
type Gateway struct {
	client   pb.SignalServiceClient
	config   Config
	lines    io.Writer // nil: answers are not written down
	guard    *orders.Guard
	venue    orders.Venue // nil: no order is sent
	recorder *latency.Recorder
	tally    Tally
	line     []byte
}

// Tally counts what came of a run.
type Tally struct {
	// Sent ticks, and those Answered with a signal; HOLD is one.
	Sent     int `json:"sent"`
	Answered int `json:"answered"`
	// Answers by status, signals by action and reason, and by what became of them.
	ByStatus  map[string]int `json:"by_status"`
	ByAction  map[string]int `json:"by_action"`
	ByReason  map[string]int `json:"by_reason"`
	ByVerdict map[string]int `json:"by_verdict"`
	// Interrupted before the last tick.
	Interrupted bool          `json:"interrupted"`
	Elapsed     time.Duration `json:"elapsed_ns"`
	// LastFailure is the message of the latest answer that was not OK.
	LastFailure string `json:"last_failure"`
}

// New returns a Gateway. Answers are written to lines unless it is nil. Orders go to venue, unless it is nil, once guard
// lets them pass.
func New(
	client pb.SignalServiceClient, config Config, lines io.Writer, guard *orders.Guard, venue orders.Venue,
) *Gateway {
	return &Gateway{
		client: client, config: config, lines: lines, guard: guard, venue: venue, recorder: latency.NewRecorder(),
		tally: Tally{
			ByStatus: map[string]int{}, ByAction: map[string]int{}, ByReason: map[string]int{}, ByVerdict: map[string]int{},
		},
	}
}

// Tally is what came of the run so far.
func (g *Gateway) Tally() Tally {
	return g.tally
}

// Latency is what the run's calls took so far.
func (g *Gateway) Latency() latency.Summary {
	return g.recorder.Summary()
}

// sent is a tick that is on its way.
type sent struct {
	index  int
	id     string
	symbol string
	at     time.Time
}

// answer is an empty one to it.
func (s sent) answer() answers.Answer {
	return answers.Answer{Index: s.index, RequestID: s.id, Symbol: s.symbol}
}

// Unary sends each tick by a Predict of its own. When ctx ends, the call under way is waited for and none follows. A call
// that fails is counted and the run goes on, unless no later one can do better.
func (g *Gateway) Unary(ctx context.Context, ticks Source) error {
	defer g.timed()()
	for {
		request, err := g.next(ctx, ticks)
		if request == nil {
			return err
		}
		if err := g.ask(ctx, request); err != nil {
			return err
		}
	}
}

func (g *Gateway) ask(ctx context.Context, request *pb.PredictRequest) error {
	// An answer under way is not thrown away: it may be an approved order.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.config.Deadline)
	defer cancel()
	call := g.sending(request)
	response, err := g.client.Predict(ctx, request)
	answered := time.Now()
	answer := call.answer()
	if err != nil {
		failure := status.Convert(err)
		answer.Code, answer.Message = failure.Code(), failure.Message()
	} else {
		answer.Response = response
		if found := response.GetRequestId(); found != call.id {
			return contractBroken("an answer to request %q, found one to %q", call.id, found)
		}
	}
	return g.take(answer, call, answered)
}

// next gives the next tick's request; nil at the end of the ticks, at the limit, when ctx has ended, and with an error.
func (g *Gateway) next(ctx context.Context, ticks Source) (*pb.PredictRequest, error) {
	if g.config.Limit > 0 && g.tally.Sent >= g.config.Limit {
		return nil, nil
	}
	if ctx.Err() != nil {
		g.tally.Interrupted = true
		return nil, nil
	}
	tick, err := ticks.Next()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	request := &pb.PredictRequest{
		RequestId: g.config.IDPrefix + strconv.Itoa(g.tally.Sent), Model: g.config.Model, BudgetUs: g.config.BudgetUs,
		Input: &pb.PredictRequest_Tick{Tick: tick},
	}
	if request.BudgetUs == 0 { // would mean none
		request.BudgetUs = max(1, uint64(g.config.Deadline.Microseconds()))
	}
	g.tally.Sent++
	return request, nil
}

// sending notes that a request is about to be sent: its time starts now.
func (g *Gateway) sending(request *pb.PredictRequest) sent {
	symbol := request.GetTick().GetSymbol()
	return sent{index: g.tally.Sent - 1, id: request.GetRequestId(), symbol: symbol, at: time.Now()}
}

// take does what an answer asks for: an order first, the books after it.
func (g *Gateway) take(answer answers.Answer, call sent, answered time.Time) error {
	if answer.Response != nil {
		if err := g.act(answer.Response, call.at, answered); err != nil {
			return err
		}
	}
	timing := answer.Response.GetTiming()
	if err := g.recorder.Record(answered.Sub(call.at), time.Duration(timing.GetTotalNs())); err != nil {
		return err
	}
	g.tally.add(answer)
	if g.lines != nil {
		g.line = answers.AppendLine(g.line[:0], answer)
		if _, err := g.lines.Write(g.line); err != nil {
			return fmt.Errorf("answer %d: %w", answer.Index, err)
		}
	}
	if slices.Contains(hopeless, answer.Code) {
		return fmt.Errorf("tick %d of %s: %s: %s", answer.Index, answer.Symbol, answers.CodeName(answer.Code), answer.Message)
	}
	return nil
}

func (g *Gateway) act(response *pb.PredictResponse, sent, answered time.Time) error {
	if g.venue == nil {
		return nil
	}
	verdict := g.guard.Judge(response, sent, answered)
	g.tally.ByVerdict[verdict.String()]++
	if verdict != orders.Act {
		return nil
	}
	return g.venue.Submit(orders.Of(response))
}

func (g *Gateway) timed() func() {
	began := time.Now()
	return func() { g.tally.Elapsed = time.Since(began) }
}

func (t *Tally) add(answer answers.Answer) {
	t.ByStatus[answers.CodeName(answer.Code)]++
	if answer.Response == nil {
		t.LastFailure = answer.Message
		return
	}
	t.Answered++
	t.ByAction[answers.ActionName(answer.Response.GetSignal().GetAction())]++
	t.ByReason[answers.ReasonName(answer.Response.GetSignal().GetReason())]++
}

// Missing says what kept ticks from being answered; nil if every one was.
func (t *Tally) Missing() error {
	if t.Answered == t.Sent {
		return nil
	}
	var counts []string
	for name, count := range t.ByStatus {
		if name != answers.CodeName(codes.OK) {
			counts = append(counts, fmt.Sprintf("%d %s", count, name))
		}
	}
	slices.Sort(counts)
	why := strings.Join(counts, ", ")
	if t.LastFailure != "" {
		why += "; the last one: " + t.LastFailure
	}
	return fmt.Errorf("%d of %d ticks were not answered: %s", t.Sent-t.Answered, t.Sent, why)
}

// ContractError is an answer that the contract rules out: nothing of it is used.
type ContractError struct {
	Detail string
}

func (e *ContractError) Error() string {
	return "the server broke the contract: " + e.Detail
}

func contractBroken(format string, arguments ...any) error {
	return &ContractError{Detail: "expected " + fmt.Sprintf(format, arguments...)}
}
