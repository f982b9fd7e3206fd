from .decoding import decoder_inputs as decoder_inputs, text_inputs as text_inputs
from .fast.compiling import (
    Compiled as Compiled,
    CompiledLayers as CompiledLayers,
    can_compile as can_compile,
)
from .flops import PassFlops as PassFlops, Seq2SeqFlops as Seq2SeqFlops
from .gains import Gains as Gains
from .keeping import keep_compiled as keep_compiled
from .ledger import (
    Meter as Meter,
    Meters as Meters,
    reference_key as reference_key,
)
from .passes import Passes as Passes, tensor_float32 as tensor_float32
from .rounding import (
    MARGIN_NATS as MARGIN_NATS,
    choice as choice,
    rounding_margin as rounding_margin,
)
from .rules import (
    STOP_WORDS as STOP_WORDS,
    TokenRules as TokenRules,
)
from .scheduler import (
    Ask as Ask,
    Draft as Draft,
    Place as Place,
    Request as Request,
    Search as Search,
    Slopes as Slopes,
    alone as alone,
    lockstep as lockstep,
    relayed as relayed,
)
from .seq2seq import head_scale as head_scale
from .subject import Subject as Subject
from .vocabulary import Vocabulary as Vocabulary
from .writing import write_text_once as write_text_once, write_texts as write_texts
