"""The federated algorithm: one file a step, both halves of it, and the plan that lists them.

`step` is the contract, `plan` the list. Nothing here knows a ledger, noise, a site's files or
Flower: a step says what leaves and how far one patient moves it, and what stands around every
answer (`hica.privacy.release`, `hica.secure_sum`) reads that.
"""
