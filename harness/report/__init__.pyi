from .building import build as build
from .tables.verdicts import lines as lines
from .writing import (
    render as render,
    write_figures as write_figures,
    write_reports as write_reports,
)
