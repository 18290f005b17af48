"""The table of limits: what one client, one file or one neighbour may cost.

Every bound on foreign data stands here, so that one page shows all of them. A bound of one protocol
(the size of a frame, the length of a queue between our own tasks) stays with that protocol. The
suffixes `_BYTES` and `_SECONDS` name the unit.
"""

# HTTP: one connection.
HEAD_BYTES = 64 * 1024  #: of a request's first line and headers
HEADERS = 256  #: of one request
HEAD_SECONDS = 30.0  #: until they are complete
KEEP_ALIVE_SECONDS = 75  #: that an idle connection stays open
SURPLUS_SECONDS = 2.0  #: until the head is complete on a connection that will be refused
PREFLIGHT_SECONDS = 600  #: that a browser may remember the answer to a preflight

# HTTP: bodies.
BODY_BYTES = 32 * 2**20  #: of one request
BODIES_BYTES = 256 * 2**20  #: of all requests whose bodies are unfinished or not read yet
SMALL_BODY_BYTES = 32 * 1024  #: of each body, that do not count among those of all
HUGE_BODY_BYTES = 4 * 2**20  #: of a body that is read into a call with no other such body beside it
LONG_BODIES = 4  #: of more than SMALL_BODY_BYTES that one route reads into calls at once
TRIM_BYTES = 16 * 2**20  #: of bodies after which freed memory is given back to the system
TRIM_SECONDS = 15.0  #: between two times that this is done
BODY_SECONDS = 60.0  #: until a body is complete, besides the seconds that its bytes add
BODY_RATE = 16 * 1024  #: bytes that add one second
BODY_CHUNKS = 2**16  #: pieces of a chunked body
BODY_REST_SECONDS = 10.0  #: for the rest of a body that was answered before its end
PIPELINED_REQUESTS = 16  #: that a client may send before the answer of an earlier one
STALL_SECONDS = 30.0  #: that one read or write may take

# Guides: what `response_format` and `grammar` may ask an engine to follow. A process judges each
# one first (`engines/guides/`). The engine compiles it again, in the loop that makes all tokens,
# once for each choice. So the bounds are narrow: a schema of 100 kB takes 20 ms and 6 MB.
GUIDE_BYTES = 256 * 1024  #: of its text
GUIDE_DEPTH = 100  #: of objects and arrays in a schema
GUIDE_SECONDS = 0.1  #: of CPU time to compile it
GUIDE_MEMORY_BYTES = 128 * 2**20  #: that the judging process may grow
GUIDE_STACK_BYTES = 2**20  #: of its call stack; the threads of an engine have more
GUIDE_SHARE = 0.2  #: of an engine's time that compiling guides may take
GUIDE_WAIT_SECONDS = 10.0  #: for a judgement, with the wait for a process
GUIDE_JUDGES = 2  #: processes of one engine
GUIDE_VERDICTS = 128  #: that are kept
#: Characters of one string of a schema, and of a text that a guide forces. An engine tokenizes such
#: a text at each step. It also bounds `minLength`, and a pattern with its repetitions written out.
GUIDE_CHARACTERS = 10_000
GUIDE_CHOICES = 10_000  #: of a list of choices
GUIDE_PLACES = 1000  #: in a guide, to which one answer may lead
GUIDE_REST_SECONDS = 2.0  #: of CPU time to find the rest of a guide for a lost answer
#: Items that the arrays of a schema may require, in total. The engines' builds of llguidance expand
#: each item. They fail at twice as many, and at a billion they take all memory.
SCHEMA_ITEMS = 20_000
#: Remainders for `multipleOf`, each of which is a state. Ten times as many delay all other answers
#: for seconds.
SCHEMA_REMAINDERS = 100_000
GRAMMAR_ELEMENTS = 50_000  #: of a grammar, with its repetitions written out
#: States that llama.cpp may keep for one text. It compares each token of the vocabulary to each.
GRAMMAR_STACKS = 512
#: Ways in which one token may follow a grammar. llama.cpp tries each; the example grammars of
#: llama.cpp have at most 704.
GRAMMAR_PATHS = 4096
GRAMMAR_SECONDS = 1.0  #: of CPU time for the search for more states and ways; some 0.3 in use

# Requests.
QUEUE_SECONDS = 600.0  #: that a request waits for its turn; clients wait no longer either
#: Values in a long body, counted as commas and opening brackets, also those inside texts. A prompt
#: of a million tokens has fewer. Decoding that many holds up other streams for some 0.1 s.
BODY_VALUES = 1_000_000
JSON_DEPTH = 100  #: of a schema, of arguments and of `chat_template_kwargs`; engines fail at 128
MESSAGES = 10_000  #: of one request; OpenAI allows 2,048
PARTS = 10_000  #: of one message: parts of its content, or calls
NAME_CHARACTERS = 1024  #: of a model's, speaker's or tool's name, and of the id of a call
ARGUMENTS_CHARACTERS = 2**20  #: of one call
TEMPLATE_KWARGS_BYTES = 4 * 2**20  #: of `chat_template_kwargs`, which may hold documents
TOOLS = 4096  #: of one request; OpenAI allows 128
TOOL_NAME_CHARACTERS = 256  #: OpenAI allows 64
TOOL_BYTES = 4 * 2**20  #: of all definitions of one request
LOGIT_BIASES = 1024  #: tokens of one request; OpenAI allows 300
CHOICES = 128  #: of one request, as OpenAI
STOP_STRINGS = 16  #: of one request; OpenAI allows 4
STOP_CHARACTERS = 256  #: of one stop string
STOP_IDS = 256  #: of one request, besides the model's own
LOGPROBS = 20  #: of the likeliest tokens in the place of each, as OpenAI
#: Log probabilities of all tokens of a prompt. They travel at once, in half a megabyte.
PROMPT_SCORES = 65_536
DEADLINE_SECONDS = 86_400.0  #: the most that `X-Request-Timeout` may ask for
EMBEDDING_INPUTS = 2048  #: prompts of one request for embeddings
EMBEDDING_TOKENS = 1_000_000  #: in all prompts of one request; OpenAI allows 300,000
SHOWN_CHARACTERS = 200  #: of a client's own words that an error repeats
ERROR_CHARACTERS = 2000  #: of an error's text, wherever it goes
LOG_CHARACTERS = 20_000  #: of a log line; tracebacks of a user's own engine are long
LOG_LINES = 20  #: with one text about peers, in one period
LOG_PERIOD_SECONDS = 60.0

# Answers: what a model may write.
#: Characters of a tool call's arguments that are held back. A shorter call is sent once it is
#: complete, so that the text of a malformed call can be sent as text.
HELD_CALL_CHARACTERS = 512
READ_CHARACTERS = 8192  #: of a token's text that are read before other answers continue
JSON_NUMBER_CHARACTERS = 1024  #: of one number in a tool call
SCHEMA_REFERENCES = 16  #: that are followed to find the type of a tool's parameter

# Chat templates: programs that come with a model.
TEMPLATE_CHARACTERS = 256 * 1024  #: of one template; the longest of the tests has 18,600
TEMPLATE_TOKENS = 20_000  #: its words and signs; the longest of the tests has 2,600
#: Steps of one rendering in this process. A step is a statement, a call or 1,024 characters, and
#: takes under 1 us. A usual conversation takes 15 steps for each message.
RENDER_STEPS = 20_000
# A rendering that needs more runs in a process of its own.
RENDER_SECONDS = 2  #: of its CPU
RENDER_BYTES = 1 << 30  #: of its memory
RENDER_PROCESSES = 2  #: at once
PROMPT_BYTES = 64 * 2**20  #: of the text that it returns

# Keys of the API.
API_KEYS = 10_000  #: in one file
KEY_FILE_BYTES = 4 * 2**20

# Discovery: what another process may register.
DISCOVERY_VALUE_BYTES = 2**20  #: of one value; longer data is stored in several
DISCOVERY_KEYS = 100_000  #: that one process reads under a prefix
DISCOVERY_BYTES = 256 * 2**20  #: of the values that one process reads under a prefix
RECORD_BYTES = 64 * 1024  #: of an instance's record
INSTANCES = 10_000  #: that an ingress knows
MODELS = 1000  #: that an ingress serves
RECORD_CHARACTERS = 256  #: of a model's name, and of other texts in a record
RECORD_NAMES = 256  #: settings, guides or tasks that an instance lists
CONTEXT_TOKENS = 2**31  #: context of an instance
SLOTS = 2**20  #: of an instance

# The request plane: while no request can be sent.
PLANE_SECONDS = 10.0  #: that a request without a deadline waits for the plane's return
PLANE_WAITING = 1000  #: requests of one model that wait at once; the others fail at once

# Peers: what another process may make us dial.
ADDRESSES = 16  #: of one peer; the others are ignored
ADDRESS_CHARACTERS = 300
DIALLED_PEERS = 64  #: ingresses that a worker dials at once

# The files of a model.
MODEL_TEXT_BYTES = 64 * 2**20  #: of a JSON file or a chat template; the largest has 35 MB
MODEL_WHOLE = 2**31 - 1  #: the largest id, size or length that a model's files may name
GGUF_VALUES = 8 * 2**20  #: of all arrays in a header; a vocabulary of 256,000 has 1.5 million
VOCABULARY = 4 * 2**20  #: ids of a tokenizer; the largest known has 260,000
ADDED_TOKENS = 2**17  #: that a tokenizer finds in a text before it splits it
TOKENIZER_TEXT = 256  #: characters that a tokenizer puts in the place of others
