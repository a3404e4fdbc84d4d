package ticks

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

const header = "symbol,exchange_ts_ns,sequence,price,size,aggressor,bid,ask,bid_size,ask_size\n"

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// all reads a file to its end or its first error.
func all(path string) ([]*pb.Tick, error) {
	reader, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	var found []*pb.Tick
	for {
		tick, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		found = append(found, tick)
	}
}

func packed(t *testing.T, content string) string {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	if _, err := writer.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.String()
}

func TestRowsBecomeTicks(t *testing.T) {
	trade := &pb.Tick{
		Symbol: "BTCUSDT", ExchangeTsNs: 1_700_000_000_000_000_000, Sequence: 17,
		Trade: &pb.Trade{Price: 37000.5, Size: 0.01, Aggressor: pb.AggressorSide_AGGRESSOR_SIDE_BUY},
	}
	quote := &pb.Tick{
		Symbol: "Ä\"x", ExchangeTsNs: 1, Quote: &pb.Quote{Bid: 1e-5, Ask: 2, BidSize: 0, AskSize: 3},
	}
	rows := "BTCUSDT,1700000000000000000,17,37000.5,0.01,buy,,,,\n\n\"Ä\"\"x\",1,,,,,1e-05,2,0,3\n"
	for _, test := range []struct{ name, file, content string }{
		{"plain", "ticks.csv", header + rows},
		{"without the last newline", "ticks.csv", header + strings.TrimSuffix(rows, "\n")},
		{"with carriage returns", "ticks.csv", strings.ReplaceAll(header+rows, "\n", "\r\n")},
		{"with a byte order mark", "ticks.csv", "\ufeff" + header + rows},
		{"gzipped", "ticks.csv.gz", packed(t, header+rows)},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := all(write(t, test.file, test.content))
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != 2 || !proto.Equal(found[0], trade) || !proto.Equal(found[1], quote) {
				t.Errorf("found %v, expected %v and %v", found, trade, quote)
			}
		})
	}
}

func TestABadRowIsToldWithLineAndColumn(t *testing.T) {
	const good = "A,1,0,1,1,,,,,\n"
	for _, test := range []struct{ name, content, expected string }{
		{"no header", "", `line 1: found an empty file, expected the header`},
		{"another header", "a,b\n", `line 1: found "a,b", expected the header`},
		{"too few fields", header + good + "A,1\n", `line 3: found 2 fields, expected 10 fields`},
		{"blank lines count", header + "\n\nA,1\n", `line 4: found 2 fields`},
		{"no symbol", header + ",1,0,1,1,,,,,\n", `line 2, column symbol: found "", 0 bytes`},
		{"a long symbol", header + strings.Repeat("x", 33) + ",1,0,1,1,,,,,\n", `33 bytes, expected 1 to 32 bytes`},
		{"not UTF-8", header + "\xff,1,0,1,1,,,,,\n", `column symbol`},
		{"time 0", header + "A,0,0,1,1,,,,,\n", `column exchange_ts_ns: found "0", expected an integer from 1 to`},
		{"a time too large", header + "A,9223372036854775808,0,1,1,,,,,\n", `column exchange_ts_ns`},
		{"a negative sequence", header + "A,1,-1,1,1,,,,,\n", `column sequence: found "-1"`},
		{"price 0", header + "A,1,0,0,1,,,,,\n", `column price: found "0", expected a finite number above 0`},
		{"price NaN", header + "A,1,0,nan,1,,,,,\n", `column price: found "nan", expected a finite number`},
		{"price infinite", header + "A,1,0,1e999,1,,,,,\n", `column price: found "1e999", expected a finite number`},
		{"price in hexadecimal", header + "A,1,0,0x1p3,1,,,,,\n", `column price: found "0x1p3"`},
		{"price with a mark", header + "A,1,0,1_000,1,,,,,\n", `column price: found "1_000"`},
		{"a negative size", header + "A,1,0,1,-1,,,,,\n", `column size: found "-1", expected a finite number, 0 or above`},
		{"no size", header + "A,1,0,1,,,,,,\n", `column size: found nothing, expected a number beside price`},
		{"an unknown side", header + "A,1,0,1,1,both,,,,\n", `column aggressor: found "both", expected "buy"`},
		{"a side without a trade", header + "A,1,0,,,buy,1,2,1,1\n", `column aggressor: found "buy", expected nothing`},
		{"half a quote", header + "A,1,0,,,,1,2,,\n", `column bid_size: found nothing, expected a number beside bid, ask`},
		{"nothing", header + "A,1,0,,,,,,,\n", `found neither trade nor quote`},
		{"bad quoting", header + "\"A,1\n", `line 2: found a malformed row`},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, "ticks.csv", test.content)
			_, err := all(path)
			var bad *BadRowError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), test.expected) || bad.Path != path {
				t.Errorf("found %v, expected a BadRowError with %q", err, test.expected)
			}
		})
	}
}

func TestAFileThatCannotBeReadIsNamed(t *testing.T) {
	whole := packed(t, header+strings.Repeat("A,1,0,1,1,,,,,\n", 1000))
	for _, test := range []struct{ name, path, expected string }{
		{"missing", filepath.Join(t.TempDir(), "none.csv"), "none.csv"},
		{"no gzip", write(t, "plain.csv.gz", header), "plain.csv.gz"},
		{"cut gzip", write(t, "cut.csv.gz", whole[:len(whole)-9]), "cut.csv.gz, after line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := all(test.path); err == nil || !strings.Contains(err.Error(), test.expected) {
				t.Errorf("found %v, expected an error with %q", err, test.expected)
			}
		})
	}
}
