package dial

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	patience = 30 * time.Second       // before a test gives up
	soon     = 150 * time.Millisecond // until a wait that must fail does
)

// pair makes a certificate of its own for the loopback, and its key, as PEM files.
func pair(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "desk"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return file(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})),
		file(t, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: bytes}))
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serving starts a server with this health, and gives its address.
func serving(t *testing.T, transport credentials.TransportCredentials, status healthpb.HealthCheckResponse_ServingStatus) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, board := grpc.NewServer(grpc.Creds(transport)), health.NewServer()
	board.SetServingStatus("", status)
	healthpb.RegisterHealthServer(server, board)
	go func() {
		if err := server.Serve(listener); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func waited(t *testing.T, target string, files TLS, timeout time.Duration) error {
	t.Helper()
	transport, err := files.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Open(target, transport)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return WaitServing(context.Background(), conn, timeout)
}

func TestAServerIsWaitedForUntilItServes(t *testing.T) {
	const up, down = healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING
	if err := waited(t, serving(t, insecure.NewCredentials(), up), TLS{}, patience); err != nil {
		t.Errorf("found %v, expected a server", err)
	}
	for _, test := range []struct{ name, target, expected string }{
		{"not serving", serving(t, insecure.NewCredentials(), down), "within 150ms: it is NOT_SERVING"},
		{"nobody", "127.0.0.1:1", "no server at 127.0.0.1:1 within 150ms: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := waited(t, test.target, TLS{}, soon); err == nil || !strings.Contains(err.Error(), test.expected) {
				t.Errorf("found %v, expected %q", err, test.expected)
			}
		})
	}
}

func TestTLSTakesTheServerThatTheCASignedAndNoOther(t *testing.T) {
	certificate, key := pair(t)
	other, otherKey := pair(t)
	own, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	content, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	clients.AppendCertsFromPEM(content)
	config := &tls.Config{
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
		MinVersion: tls.VersionTLS13,
	}
	target := serving(t, credentials.NewTLS(config), healthpb.HealthCheckResponse_SERVING)
	for _, test := range []struct {
		name    string
		files   TLS
		timeout time.Duration
		serves  bool
	}{
		{"its own", TLS{CA: certificate, Certificate: certificate, Key: key}, patience, true},
		{"another CA", TLS{CA: other, Certificate: certificate, Key: key}, soon, false},
		{"another client", TLS{CA: certificate, Certificate: other, Key: otherKey}, soon, false},
		{"no client", TLS{CA: certificate}, soon, false},
		{"plain text", TLS{}, soon, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := waited(t, target, test.files, test.timeout); (err == nil) != test.serves {
				t.Errorf("found %v, expected it to serve: %t", err, test.serves)
			}
		})
	}
}

func TestFilesThatAreNoCertificatesAreNamed(t *testing.T) {
	certificate, key := pair(t)
	empty := file(t, nil)
	for _, test := range []struct {
		name, expected string
		files          TLS
	}{
		{"no CA", "TLS needs the CA's certificate", TLS{Certificate: certificate, Key: key}},
		{"no key", "an own certificate together with its key", TLS{CA: certificate, Certificate: certificate}},
		{"a CA that is missing", "none.pem", TLS{CA: "none.pem"}},
		{"a CA that is none", empty + ": found no certificate", TLS{CA: empty}},
		{"a key that is none", empty, TLS{CA: certificate, Certificate: certificate, Key: empty}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := test.files.Credentials(); err == nil || !strings.Contains(err.Error(), test.expected) {
				t.Errorf("found %v, expected %q", err, test.expected)
			}
		})
	}
}

func TestAnAddressThatIsNoneIsNamed(t *testing.T) {
	if _, err := Open("%zz", insecure.NewCredentials()); err == nil || !strings.Contains(err.Error(), `address "%zz"`) {
		t.Errorf("found %v, expected the address", err)
	}
}
