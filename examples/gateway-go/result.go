package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"example.com/tickgate/gateway-go/internal/gateway"
	"example.com/tickgate/gateway-go/internal/latency"
)

// result is what a run says in the end.
type result struct {
	gateway.Tally
	// Load is how the server was asked, for beside the latencies.
	Load     string          `json:"load"`
	Latency  latency.Summary `json:"latency"`
	SLA      string          `json:"sla"`
	Breaches []string        `json:"breaches"`

	asJSON bool
}

func newResult(g *gateway.Gateway, o *options) *result {
	load := "unary, 1 in flight, 1 connection"
	if o.stream {
		load = fmt.Sprintf("stream, %d in flight, 1 connection, 1 tick a message", o.calls.InFlight)
	}
	summary := g.Latency()
	return &result{
		Tally: g.Tally(), Load: load, Latency: summary, SLA: o.sla.String(), Breaches: o.sla.Breaches(summary.RoundTrip),
		asJSON: o.json,
	}
}

func (r *result) print(out io.Writer) error {
	if r.asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	perSecond := 0.0
	if r.Elapsed > 0 {
		perSecond = float64(r.Sent) / r.Elapsed.Seconds()
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%d of %d ticks answered in %.2f s (%.0f/s)\n", r.Answered, r.Sent, r.Elapsed.Seconds(), perSecond)
	for _, counts := range []struct {
		kind string
		of   map[string]int
	}{{"status", r.ByStatus}, {"action", r.ByAction}, {"reason", r.ByReason}, {"orders", r.ByVerdict}} {
		for _, name := range byCount(counts.of) {
			fmt.Fprintf(table, "%s\t%s\t%d\n", counts.kind, name, counts.of[name])
		}
	}
	fmt.Fprintf(table, "\nlatency in us: %s\n\tp50\tp90\tp99\tp99.9\tmax\tcount\n", r.Load)
	for _, row := range []struct {
		name string
		of   latency.Percentiles
	}{{"round trip", r.Latency.RoundTrip}, {"server", r.Latency.Server}, {"network", r.Latency.Network}} {
		fmt.Fprintf(table, "%s\t%s\t%d\n", row.name, cells(row.of), row.of.Count)
	}
	if r.SLA != "" && len(r.Breaches) == 0 {
		fmt.Fprintf(table, "SLA kept: %s\n", r.SLA)
	}
	return table.Flush()
}

func cells(p latency.Percentiles) string {
	if p.Count == 0 {
		return "-\t-\t-\t-\t-"
	}
	var texts []string
	for _, value := range []float64{p.P50Us, p.P90Us, p.P99Us, p.P999Us, p.MaxUs} {
		texts = append(texts, fmt.Sprintf("%.1f", value))
	}
	return strings.Join(texts, "\t")
}

// byCount gives the names of counts, the largest first.
func byCount(counts map[string]int) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if difference := counts[b] - counts[a]; difference != 0 {
			return difference
		}
		return strings.Compare(a, b)
	})
}
