"""Online learning: challengers fitted on newer data, held against the champion, and promoted where they are better.

`config` says what is retrained and by which rule; `journal_ticks` and `newest` bring the data, `challengers` fits,
`comparison` and `paired` hold the challenger against the champion, `decision` says what becomes of it, `rounds` keeps
what came of each round, `round` is one from its beginning to its end, `triggers` and `schedule` say when there is one.
"""
