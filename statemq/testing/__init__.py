"""Whether what happened kept the promises: a checker for recorded histories (``statemq.testing.history``)."""
