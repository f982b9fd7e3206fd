from .blocks import (
    IGNORED as IGNORED,
    count_tokens as count_tokens,
    joined_ids as joined_ids,
    pair_blocks as pair_blocks,
    token_blocks as token_blocks,
)
from .corpora import Corpora as Corpora
from .cutting import Cutter as Cutter
from .document import (
    Document as Document,
    Example as Example,
    ExampleSets as ExampleSets,
    content_key as content_key,
    content_of as content_of,
)
from .encoding import TextEncoder as TextEncoder, special_ids as special_ids
from .examples import (
    Documents as Documents,
    build_examples as build_examples,
    cut_examples as cut_examples,
    cut_further as cut_further,
    example_fault as example_fault,
)
from .overlap import shared_documents as shared_documents
from .patterns import matching as matching
from .sections import (
    CORPUS as CORPUS,
    MEANINGS as MEANINGS,
    CorpusName as CorpusName,
    CorpusSection as CorpusSection,
    ExampleSet as ExampleSet,
    ExamplesSection as ExamplesSection,
)
