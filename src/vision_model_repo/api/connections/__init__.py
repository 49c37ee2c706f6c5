"""Bounds of connections: header bytes, time to a whole header, how many there are, and how slow either side may be.

    limits    the numbers, from settings
    table     all connections: which to close when there are too many, and a sweep that finds the slow ones
    protocol  one connection, which is uvicorn's with these bounds
      reading   its input, parsed
      exchange  one request and its answer
      refusal   what it says where there is no request to answer
      pace      how fast bytes pass
    install   puts the protocol into the running uvicorn

Uvicorn makes its protocol objects from `config.http_protocol_class` once the application has started, so that
`install`, called at start-up, is all it takes, however uvicorn was started.
"""
