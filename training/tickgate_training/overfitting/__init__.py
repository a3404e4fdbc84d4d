"""How much of a result is the search for it: Sharpe ratios held against chance (`sharpe`), and CSCV (`pbo`)."""
