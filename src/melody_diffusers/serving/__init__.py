"""`melody serve`: music over HTTP, and a page beside it.

app.py        the endpoints
guard.py      what is refused at the door, before anything is parsed: size, token, foreign pages, a full queue
requests.py   what a request may say, and how errors are told
queue.py      who is next; requests that are alike become one batch
engine.py     the work itself: calls of the pipelines, and what they made as files
page/         static files, served at /
"""
