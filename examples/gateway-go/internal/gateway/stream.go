package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"example.com/tickgate/gateway-go/internal/answers"
	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

const streamDeadline = 24 * time.Hour // a forgotten stream ends after a day

var errUnanswered = errors.New("no answer on the stream in time")

// Stream sends the ticks over one PredictStream, one a message, with at most InFlight of them unanswered. When ctx ends,
// no tick follows, and the answers that are under way are waited for. A failed item is counted and the run goes on; a
// stream that ends badly ends it.
func (g *Gateway) Stream(ctx context.Context, ticks Source) error {
	defer g.timed()()
	calls, end := context.WithTimeout(context.WithoutCancel(ctx), streamDeadline)
	defer end()
	calls, cancel := context.WithCancelCause(calls)
	defer cancel(nil)
	stream, err := g.client.PredictStream(calls)
	if err != nil {
		return fmt.Errorf("the stream: %w", err)
	}
	// A slot a message in flight. What is pending never waits: there are as many places as slots.
	slots, pending := make(chan struct{}, g.config.InFlight), make(chan sent, g.config.InFlight)
	sending := make(chan error, 1)
	go func() {
		defer close(pending)
		sending <- g.send(ctx, calls, stream, ticks, slots, pending)
	}()
	err = g.receive(stream, slots, pending, cancel)
	if err != nil {
		cancel(err) // the sender may wait for a slot, or for the server to read
		if errors.Is(context.Cause(calls), errUnanswered) {
			err = fmt.Errorf("%w (%v)", errUnanswered, g.config.Deadline)
		}
	}
	return errors.Join(err, <-sending)
}

// send sends ticks until there are no more, the run is interrupted, or the stream breaks, of which the receiver knows why.
func (g *Gateway) send(
	ctx, calls context.Context, stream grpc.BidiStreamingClient[pb.PredictStreamRequest, pb.PredictStreamResponse],
	ticks Source, slots chan<- struct{}, pending chan<- sent,
) error {
	for {
		select {
		case slots <- struct{}{}:
		case <-calls.Done():
			return nil
		}
		request, err := g.next(ctx, ticks)
		if request == nil {
			return errors.Join(err, stream.CloseSend())
		}
		message := &pb.PredictStreamRequest{Requests: []*pb.PredictRequest{request}}
		pending <- g.sending(request)
		if err := stream.Send(message); err != nil {
			return nil
		}
	}
}

// receive takes answers until every message that was sent has one and the server has ended the stream.
func (g *Gateway) receive(
	stream grpc.BidiStreamingClient[pb.PredictStreamRequest, pb.PredictStreamResponse],
	slots <-chan struct{}, pending <-chan sent, cancel context.CancelCauseFunc,
) error {
	for call := range pending {
		message, err := awaited(stream, call.at.Add(g.config.Deadline), cancel)
		answered := time.Now()
		if errors.Is(err, io.EOF) {
			return contractBroken("an answer to request %q, found the end of the stream", call.id)
		}
		if err != nil {
			return fmt.Errorf("the stream ended: %w", err)
		}
		answer, err := only(message, call)
		if err != nil {
			return err
		}
		if err := g.take(answer, call, answered); err != nil {
			return err
		}
		<-slots
	}
	message, err := awaited(stream, time.Now().Add(g.config.Deadline), cancel)
	if err == nil {
		return contractBroken("the end of the stream, found %d more results", len(message.GetResults()))
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ended: %w", err)
	}
	return nil
}

// awaited waits for a message until due: gRPC's own deadline is the whole stream's.
func awaited(
	stream grpc.BidiStreamingClient[pb.PredictStreamRequest, pb.PredictStreamResponse], due time.Time,
	cancel context.CancelCauseFunc,
) (*pb.PredictStreamResponse, error) {
	timer := time.AfterFunc(time.Until(due), func() { cancel(errUnanswered) })
	defer timer.Stop()
	return stream.Recv()
}

// only gives the one result that a message of one request is answered with.
func only(message *pb.PredictStreamResponse, call sent) (answers.Answer, error) {
	answer := call.answer()
	if results := message.GetResults(); len(results) != 1 || results[0].GetRequestId() != call.id {
		return answer, contractBroken("one result, of request %q, found %d: %v", call.id, len(results), results)
	}
	result := message.GetResults()[0]
	answer.Code, answer.Message = codes.Code(result.GetCode()), result.GetMessage()
	if answer.Code != codes.OK {
		return answer, nil
	}
	if result.GetResponse() == nil {
		return answer, contractBroken("a response to request %q, which is OK, found none", call.id)
	}
	answer.Response = result.GetResponse()
	return answer, nil
}
