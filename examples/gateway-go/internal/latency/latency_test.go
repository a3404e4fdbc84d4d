package latency

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestPercentilesAreTheNearestRanksOfTheSamples(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, count := range []int{1, 2, 10, 999, 1000, 1600, 10_007} {
		recorder := NewRecorder()
		var us []float64
		for range count {
			sample := time.Duration(2000 + random.ExpFloat64()*1e6)
			us = append(us, float64(sample)/1e3)
			if err := recorder.Record(sample, sample/2); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(us)
		rank := func(perMille int) float64 { return us[(count*perMille+999)/1000-1] }
		summary := recorder.Summary()
		for _, reading := range []struct {
			name            string
			found, expected float64
		}{
			{"p50", summary.RoundTrip.P50Us, rank(500)}, {"p90", summary.RoundTrip.P90Us, rank(900)},
			{"p99", summary.RoundTrip.P99Us, rank(990)}, {"p99.9", summary.RoundTrip.P999Us, rank(999)},
			{"max", summary.RoundTrip.MaxUs, us[count-1]},
		} {
			if ratio := reading.found / reading.expected; ratio < 0.999 || ratio > 1.001 {
				t.Errorf("%s of %d: found %g, expected %g", reading.name, count, reading.found, reading.expected)
			}
		}
		if summary.Server.Count != int64(count) || summary.Network.Count != int64(count) {
			t.Errorf("of %d samples the server's are %d, the network's %d", count, summary.Server.Count, summary.Network.Count)
		}
	}
}

func TestWhatIsOutOfRangeCountsAsTheRangesEnd(t *testing.T) {
	for _, test := range []struct {
		name              string
		roundTrip, server time.Duration
		expected          [3]float64 // largest of round trip, server and network, in us
		counts            [3]int64
	}{
		{"too short", 10, 0, [3]float64{1, 0, 0}, [3]int64{1, 0, 0}},
		{"too long", time.Hour, 0, [3]float64{60e6, 0, 0}, [3]int64{1, 0, 0}},
		{"a server that counts more than the round trip", 5000, 6000, [3]float64{5, 6, 1}, [3]int64{1, 1, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			recorder := NewRecorder()
			if err := recorder.Record(test.roundTrip, test.server); err != nil {
				t.Fatal(err)
			}
			s := recorder.Summary()
			if found := [3]float64{s.RoundTrip.MaxUs, s.Server.MaxUs, s.Network.MaxUs}; found != test.expected {
				t.Errorf("found %v, expected %v", found, test.expected)
			}
			if found := [3]int64{s.RoundTrip.Count, s.Server.Count, s.Network.Count}; found != test.counts {
				t.Errorf("found counts %v, expected %v", found, test.counts)
			}
		})
	}
}

func TestAnSLAIsReadFromItsText(t *testing.T) {
	for _, test := range []struct{ text, again, wrong string }{
		{"p99=5ms", "p99=5ms", ""},
		{"max=1s, p99.9=20ms,p50=100us", "p50=100µs,p99.9=20ms,max=1s", ""},
		{"p98=1ms", "", `found "p98=1ms", expected p50, p90, p99, p99.9 or max, as in p99=5ms`},
		{"", "", `found "", expected p50, p90, p99, p99.9 or max, as in p99=5ms`},
		{"p99", "", `found "", expected a positive duration behind p99=, as in p99=5ms`},
		{"p99=5", "", `found "5", expected a positive duration behind p99=, as in p99=5ms`},
		{"p99=-5ms", "", `found "-5ms", expected a positive duration behind p99=, as in p99=5ms`},
		{"p99=1ms,p99=2ms", "", "p99 is bounded twice"},
	} {
		t.Run(test.text, func(t *testing.T) {
			var sla SLA
			err := sla.Set(test.text)
			if test.wrong != "" {
				if err == nil || err.Error() != test.wrong {
					t.Errorf("found %v, expected %q", err, test.wrong)
				}
			} else if err != nil || sla.String() != test.again {
				t.Errorf("found %q and %v, expected %q", sla.String(), err, test.again)
			}
		})
	}
}

func TestABoundHoldsUpToItsValue(t *testing.T) {
	found := Percentiles{P50Us: 100, P90Us: 200, P99Us: 5000, P999Us: 5000.1, MaxUs: 9000, Count: 10}
	for _, test := range []struct {
		sla      string
		found    Percentiles
		expected []string
	}{
		{"p99=5ms", found, nil},
		{"p99.9=5ms", found, []string{"p99.9 of the round trip is 5000.1 us, over 5000.0 us"}},
		{"p50=99us,p90=200us,max=8ms", found, []string{
			"p50 of the round trip is 100.0 us, over 99.0 us", "max of the round trip is 9000.0 us, over 8000.0 us",
		}},
		{"p99=5ms", Percentiles{}, []string{"p99 of the round trip is not known: no call was made"}},
	} {
		t.Run(test.sla, func(t *testing.T) {
			var sla SLA
			if err := sla.Set(test.sla); err != nil {
				t.Fatal(err)
			}
			if breaches := sla.Breaches(test.found); !slices.Equal(breaches, test.expected) {
				t.Errorf("found %q, expected %q", breaches, test.expected)
			}
		})
	}
	if breaches := (&SLA{}).Breaches(found); len(breaches) > 0 {
		t.Errorf("no bound: found %q, expected none", breaches)
	}
}
