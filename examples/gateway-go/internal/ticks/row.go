package ticks

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	pb "example.com/tickgate/gateway-go/internal/tickgatev1"
)

const symbolBytesMax = 32

var aggressors = map[string]pb.AggressorSide{
	"":     pb.AggressorSide_AGGRESSOR_SIDE_UNSPECIFIED,
	"buy":  pb.AggressorSide_AGGRESSOR_SIDE_BUY,
	"sell": pb.AggressorSide_AGGRESSOR_SIDE_SELL,
}

// row is one row under examination: after the first fault the rest is passed over.
type row struct {
	fields []string
	bad    *BadRowError
}

// parse gives the row's tick, or what is wrong with it, without path and line.
func parse(fields []string) (*pb.Tick, *BadRowError) {
	r := &row{fields: fields}
	if len(fields) != len(columns) {
		r.fail("", fmt.Sprintf("%d fields", len(fields)), fmt.Sprintf("%d fields", len(columns)))
		return nil, r.bad
	}
	tick := &pb.Tick{Symbol: r.symbol(), ExchangeTsNs: int64(r.integer("exchange_ts_ns", 1, math.MaxInt64))}
	if r.text("sequence") != "" {
		tick.Sequence = r.integer("sequence", 0, math.MaxUint64)
	}
	aggressor := r.aggressor()
	if r.has("price", "size") {
		tick.Trade = &pb.Trade{Price: r.price("price"), Size: r.size("size"), Aggressor: aggressor}
	} else if aggressor != pb.AggressorSide_AGGRESSOR_SIDE_UNSPECIFIED {
		r.fail("aggressor", strconv.Quote(r.text("aggressor")), "nothing where there is no trade")
	}
	if r.has("bid", "ask", "bid_size", "ask_size") {
		tick.Quote = &pb.Quote{
			Bid: r.price("bid"), Ask: r.price("ask"), BidSize: r.size("bid_size"), AskSize: r.size("ask_size"),
		}
	}
	if tick.Trade == nil && tick.Quote == nil {
		r.fail("", "neither trade nor quote", "a trade, a quote or both")
	}
	if r.bad != nil {
		return nil, r.bad
	}
	return tick, nil
}

func (r *row) text(column string) string {
	return r.fields[slices.Index(columns, column)]
}

func (r *row) fail(column, found, expected string) {
	if r.bad == nil {
		r.bad = &BadRowError{Column: column, Found: found, Expected: expected}
	}
}

// has says whether the columns are all filled; some of them only are a fault.
func (r *row) has(names ...string) bool {
	var empty, filled []string
	for _, column := range names {
		if r.text(column) == "" {
			empty = append(empty, column)
		} else {
			filled = append(filled, column)
		}
	}
	if len(empty) > 0 && len(filled) > 0 {
		r.fail(empty[0], "nothing", "a number beside "+strings.Join(filled, ", "))
	}
	return len(empty) == 0
}

func (r *row) symbol() string {
	symbol := r.text("symbol")
	if size := len(symbol); size < 1 || size > symbolBytesMax || !utf8.ValidString(symbol) {
		r.fail("symbol", fmt.Sprintf("%q, %d bytes", symbol, size), fmt.Sprintf("1 to %d bytes of UTF-8", symbolBytesMax))
	}
	// The row's fields share one string, which a symbol that is kept would keep alive.
	return strings.Clone(symbol)
}

func (r *row) aggressor() pb.AggressorSide {
	side, known := aggressors[r.text("aggressor")]
	if !known {
		r.fail("aggressor", strconv.Quote(r.text("aggressor")), `"buy", "sell" or nothing`)
	}
	return side
}

func (r *row) integer(column string, least, most uint64) uint64 {
	number, err := strconv.ParseUint(r.text(column), 10, 64)
	if err != nil || number < least || number > most {
		r.fail(column, strconv.Quote(r.text(column)), fmt.Sprintf("an integer from %d to %d", least, most))
	}
	return number
}

func (r *row) price(column string) float64 {
	price := r.number(column)
	if !(price > 0) {
		r.fail(column, strconv.Quote(r.text(column)), "a finite number above 0")
	}
	return price
}

func (r *row) size(column string) float64 {
	size := r.number(column)
	if !(size >= 0) {
		r.fail(column, strconv.Quote(r.text(column)), "a finite number, 0 or above")
	}
	return size
}

func (r *row) number(column string) float64 {
	text := r.text(column)
	number, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	// ParseFloat would take Go's 0x1p-2 and 1_000 too.
	if err != nil || math.IsInf(number, 0) || math.IsNaN(number) || strings.ContainsAny(text, "xX_") {
		r.fail(column, strconv.Quote(text), "a finite number")
		return math.NaN()
	}
	return number
}
