"""What a recorded file holds, by the rules that the server holds live ticks to: `tickgate check-data`.

    recording   files to pieces of rows: each format gives ticks, and the rows that are none
    screening   the server's rules over the pieces, symbols' rows and clocks included
    tally       what is counted of it, in bounded memory
    document    the report as plain numbers; `sheets` and `plots` show it, `page` puts both into one HTML file

It is here and not in the server because what reads captures and daily bars, and what draws pages, is training's.
"""
