"""Pure decisions: values in, a plan out; no clock, no random, no logging, no I/O."""
