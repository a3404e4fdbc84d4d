package latency

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// reading is a percentile that an SLA may bound.
type reading struct {
	name string
	of   func(Percentiles) float64
}

// readings are in the order in which breaches are told.
var readings = []reading{
	{"p50", func(p Percentiles) float64 { return p.P50Us }},
	{"p90", func(p Percentiles) float64 { return p.P90Us }},
	{"p99", func(p Percentiles) float64 { return p.P99Us }},
	{"p99.9", func(p Percentiles) float64 { return p.P999Us }},
	{"max", func(p Percentiles) float64 { return p.MaxUs }},
}

// SLA bounds percentiles of the round trip; the zero value bounds nothing. As a flag it is `p99=5ms,p99.9=20ms`.
type SLA struct {
	bounds map[string]time.Duration
}

// Set reads the SLA from a flag's text.
func (s *SLA) Set(text string) error {
	bounds := make(map[string]time.Duration)
	for part := range strings.SplitSeq(text, ",") {
		name, limit, _ := strings.Cut(strings.TrimSpace(part), "=")
		if !slices.ContainsFunc(readings, func(r reading) bool { return r.name == name }) {
			return fmt.Errorf("found %q, expected p50, p90, p99, p99.9 or max, as in p99=5ms", part)
		}
		bound, err := time.ParseDuration(limit)
		if err != nil || bound <= 0 {
			return fmt.Errorf("found %q, expected a positive duration behind %s=, as in %s=5ms", limit, name, name)
		}
		if _, twice := bounds[name]; twice {
			return fmt.Errorf("%s is bounded twice", name)
		}
		bounds[name] = bound
	}
	s.bounds = bounds
	return nil
}

// String is the flag's text again.
func (s *SLA) String() string {
	var parts []string
	for _, r := range readings {
		if bound, set := s.bounds[r.name]; set {
			parts = append(parts, r.name+"="+bound.String())
		}
	}
	return strings.Join(parts, ",")
}

// Breaches names each bound that does not hold, none if all do. Without a sample nothing is known, and every bound counts
// as broken.
func (s *SLA) Breaches(found Percentiles) []string {
	var breaches []string
	for _, r := range readings {
		bound, set := s.bounds[r.name]
		if !set {
			continue
		}
		boundUs := float64(bound) / 1e3
		switch valueUs := r.of(found); {
		case found.Count == 0:
			breaches = append(breaches, fmt.Sprintf("%s of the round trip is not known: no call was made", r.name))
		case !(valueUs <= boundUs):
			breaches = append(breaches, fmt.Sprintf("%s of the round trip is %.1f us, over %.1f us", r.name, valueUs, boundUs))
		}
	}
	return breaches
}
