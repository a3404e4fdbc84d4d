package main

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestACommandLineThatMakesNoSenseIsRefused(t *testing.T) {
	for _, test := range []struct{ line, expected string }{
		{"-target a", "found 0 files of ticks, expected one"},
		{"-target a x.csv y.csv", "found 2 files of ticks, expected one"},
		{"x.csv", "-target is missing"},
		{"-target a -orders o x.csv", "-orders needs -service"},
		{"-target a -deadline 0 x.csv", "-deadline is 0s, must be 1us or more"},
		{"-target a -connect-timeout -1s x.csv", "-connect-timeout is -1s, must be positive"},
		{"-target a -stream -in-flight 0 x.csv", "-in-flight is 0, must be 1 to 1024 messages"},
		{"-target a -stream -in-flight 1025 x.csv", "-in-flight is 1025, must be 1 to 1024 messages"},
		{"-target a -in-flight 2 x.csv", "-in-flight is for -stream"},
		{"-target a -limit -1 x.csv", "-limit is -1, must not be negative"},
		{"-target a -id-prefix 123456789012345678 x.csv", "-id-prefix is 18 bytes long, must be 17 at most"},
		{"-target a -sla p99 x.csv", "expected a positive duration behind p99="},
		{"-target a -budget-us -1 x.csv", `invalid value "-1" for flag -budget-us`},
		{"-what", "flag provided but not defined: -what"},
	} {
		t.Run(test.line, func(t *testing.T) {
			var stdout, stderr strings.Builder
			status := run(context.Background(), strings.Fields(test.line), &stdout, &stderr)
			if status != exitUsage || !strings.Contains(stderr.String(), test.expected) || stdout.Len() > 0 {
				t.Errorf("found %d and %q, expected %d and %q", status, stderr.String(), exitUsage, test.expected)
			}
		})
	}
}

func TestHelpIsNoError(t *testing.T) {
	var stdout, stderr strings.Builder
	if status := run(context.Background(), []string{"-h"}, &stdout, &stderr); status != exitOK {
		t.Errorf("found %d, expected %d", status, exitOK)
	}
	if !strings.Contains(stderr.String(), "usage: gateway -target HOST:PORT") {
		t.Errorf("found %q, expected the usage", stderr.String())
	}
}

func TestFlagsBecomeWhatCallsHave(t *testing.T) {
	line := "-target a -model m:1 -budget-us 7 -deadline 50ms -stream -in-flight 3 -limit 9 -id-prefix p- -sla p99=5ms x.csv"
	var stderr strings.Builder
	o, err := parseOptions(strings.Fields(line), &stderr)
	if err != nil {
		t.Fatal(err)
	}
	c := o.calls
	if c.Model != "m:1" || c.BudgetUs != 7 || c.Deadline != 50*time.Millisecond || c.InFlight != 3 || c.Limit != 9 ||
		c.IDPrefix != "p-" || !o.stream || o.sla.String() != "p99=5ms" || o.ticks != "x.csv" || o.target != "a" {
		t.Errorf("found %+v", o)
	}
}
