from .blocks import (
    IGNORED as IGNORED,
    count_tokens as count_tokens,
    pair_blocks as pair_blocks,
    token_blocks as token_blocks,
)
from .corpora import Corpora as Corpora
from .document import (
    Document as Document,
    Example as Example,
    ExampleSets as ExampleSets,
    content_key as content_key,
    content_of as content_of,
)
from .encoding import TextEncoder as TextEncoder
from .examples import build_examples as build_examples
from .sections import (
    FINGERPRINT as FINGERPRINT,
    SLICE as SLICE,
    SPLIT as SPLIT,
    CorpusSection as CorpusSection,
    ExampleSet as ExampleSet,
    ExamplesSection as ExamplesSection,
)
