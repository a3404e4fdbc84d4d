// Package latency measures where the time of calls went, and holds it against a service level.
package latency

import (
	"fmt"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	lowest            = time.Microsecond // shorter times count as this
	highest           = time.Minute      // longer times count as this
	significantDigits = 3
)

// Percentiles of one duration in microseconds, to three significant digits; zeros where Count is 0.
type Percentiles struct {
	P50Us  float64 `json:"p50_us"`
	P90Us  float64 `json:"p90_us"`
	P99Us  float64 `json:"p99_us"`
	P999Us float64 `json:"p999_us"`
	MaxUs  float64 `json:"max_us"`
	Count  int64   `json:"count"`
}

// Summary has the percentiles of everything that is recorded.
type Summary struct {
	// RoundTrip is from handing the request to gRPC to having its answer, failures included.
	RoundTrip Percentiles `json:"round_trip"`
	// Server is the server's own `Timing.total_ns`.
	Server Percentiles `json:"server"`
	// Network is the difference of each call: wire, and both gRPC stacks.
	Network Percentiles `json:"network"`
}

// Recorder keeps latencies in HDR histograms. It is not safe for concurrent use.
type Recorder struct {
	roundTrip, server, network histogram
}

// NewRecorder returns an empty Recorder.
func NewRecorder() *Recorder {
	return &Recorder{roundTrip: newHistogram(), server: newHistogram(), network: newHistogram()}
}

// Record takes one call; server is 0 where the call got no timing from it.
func (r *Recorder) Record(roundTrip, server time.Duration) error {
	if err := r.roundTrip.record(roundTrip); err != nil {
		return err
	}
	if server <= 0 {
		return nil
	}
	if err := r.server.record(server); err != nil {
		return err
	}
	return r.network.record(roundTrip - server)
}

// Summary gives the percentiles so far.
func (r *Recorder) Summary() Summary {
	return Summary{
		RoundTrip: r.roundTrip.percentiles(), Server: r.server.percentiles(), Network: r.network.percentiles(),
	}
}

type histogram struct {
	counts *hdrhistogram.Histogram
	max    int64
}

func newHistogram() histogram {
	// In units of 1 ns: with 1 us for the unit, three digits would hold from 1 ms upwards only.
	return histogram{counts: hdrhistogram.New(1, int64(highest), significantDigits)}
}

func (h *histogram) record(duration time.Duration) error {
	ns := int64(min(max(duration, lowest), highest))
	h.max = max(h.max, ns)
	if err := h.counts.RecordValue(ns); err != nil {
		return fmt.Errorf("a latency of %d ns: %w", ns, err)
	}
	return nil
}

func (h *histogram) percentiles() Percentiles {
	return Percentiles{
		P50Us: h.at(500), P90Us: h.at(900), P99Us: h.at(990), P999Us: h.at(999),
		MaxUs: float64(h.max) / 1e3, Count: h.counts.TotalCount(),
	}
}

// at is the nearest rank: the p-th of n samples is the ceil(p n)-th smallest. The histogram's own reading rounds p n, and
// so takes the 1,598th of 1,600 for the 99.9th percentile; asked for the rank itself it has nothing to round.
func (h *histogram) at(perMille int64) float64 {
	count := h.counts.TotalCount()
	if count == 0 {
		return 0
	}
	rank := math.Ceil(float64(count*perMille) / 1000)
	ns := h.counts.ValueAtPercentile(100 * rank / float64(count))
	// The upper end of a bucket may lie above the largest sample.
	return float64(min(ns, h.max)) / 1e3
}
