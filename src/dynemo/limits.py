"""The table of limits: what one client, one file or one neighbour may cost.

Every bound on foreign data stands here, so that one page shows all of them. A bound of one protocol
(the size of a frame, the length of a queue between our own tasks) stays with that protocol. The
suffixes `_BYTES` and `_SECONDS` name the unit.
"""

# HTTP: one connection.
HEAD_BYTES = 64 * 1024  #: of a request's first line and headers
HEAD_SECONDS = 30.0  #: until they are complete
KEEP_ALIVE_SECONDS = 75  #: that an idle connection stays open
PREFLIGHT_SECONDS = 600  #: that a browser may remember the answer to a preflight

# HTTP: bodies.
BODY_BYTES = 32 * 2**20  #: of one request
STALL_SECONDS = 30.0  #: that one read or write may take

# Guides: what `response_format` and `grammar` may ask an engine to follow.
#: Items that the arrays of a schema may require, in total. The engines' builds of llguidance expand
#: each item. They fail at twice as many, and at a billion they take all memory.
SCHEMA_ITEMS = 20_000
#: Remainders for `multipleOf`, each of which is a state. Ten times as many delay all other answers
#: for seconds.
SCHEMA_REMAINDERS = 100_000

# Requests.
DEADLINE_SECONDS = 86_400.0  #: the most that `X-Request-Timeout` may ask for
EMBEDDING_INPUTS = 2048  #: prompts of one request for embeddings
SHOWN_CHARACTERS = 200  #: of a client's own words that an error repeats

# Discovery: what another process may register.
DISCOVERY_VALUE_BYTES = 2**20  #: of one value; longer data is stored in several
