from .queue import (
    QueuedJob as QueuedJob,
    cancel as cancel,
    queued_jobs as queued_jobs,
    was_submitted as was_submitted,
)
from .submission import (
    Submission as Submission,
    submit_run as submit_run,
)
