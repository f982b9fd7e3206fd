from .building import build as build
from .checking import stale as stale
from .choosing import choose as choose
from .content import Report as Report
from .examples import (
    ShownExample as ShownExample,
    show_example as show_example,
    token_splitter as token_splitter,
)
from .sentences import attack_lines as attack_lines, estimate_text as estimate_text
from .tables.verdicts import lines as lines
from .writing import (
    render as render,
    write_figures as write_figures,
    write_reports as write_reports,
)
