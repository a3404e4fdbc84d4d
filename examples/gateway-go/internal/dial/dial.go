// Package dial opens connections to tickgate's listeners.
package dial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const pause = 100 * time.Millisecond // between two looks at a server that does not serve yet

// TLS names the PEM files of a connection; all empty: plain text.
type TLS struct {
	// CA signed the server's certificate.
	CA string
	// Certificate and Key are the gateway's own, for a server that asks for them.
	Certificate, Key string
}

// Credentials reads the files.
func (t TLS) Credentials() (credentials.TransportCredentials, error) {
	if t == (TLS{}) {
		return insecure.NewCredentials(), nil
	}
	if t.CA == "" || (t.Certificate == "") != (t.Key == "") {
		return nil, errors.New("TLS needs the CA's certificate, and an own certificate together with its key")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	authority, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, err
	}
	if !config.RootCAs.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s: found no certificate, expected PEM", t.CA)
	}
	if t.Certificate != "" {
		own, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", t.Certificate, t.Key, err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return credentials.NewTLS(config), nil
}

// Open makes a connection of its own to a listener; it is begun by the first call. The caller closes it.
func Open(target string, transport credentials.TransportCredentials) (*grpc.ClientConn, error) {
	again := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(transport),
		// A signal asked for again is a different signal: gRPC never repeats a call by itself, nor because DNS says so.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		// A proxy of the environment is meant for browsers, not for the trading path.
		grpc.WithNoProxy(),
		// Come back soon after a server's restart; by itself gRPC would wait for up to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: time.Second}),
	)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", target, err)
	}
	return conn, nil
}

// WaitServing waits until the server says that it serves, so that the first call does not pay for the connection. A server
// that is not there yet, or starting, is waited for.
func WaitServing(ctx context.Context, conn *grpc.ClientConn, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	health := healthpb.NewHealthClient(conn)
	var why error
	for {
		answer, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
		switch {
		case err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING:
			return nil
		case err == nil:
			why = fmt.Errorf("it is %v", answer.GetStatus())
		case ctx.Err() == nil || why == nil: // that the time is up says less than what went before
			why = errors.New(status.Convert(err).Message())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no server at %s within %v: %w", conn.Target(), timeout, why)
		case <-time.After(pause):
		}
	}
}
