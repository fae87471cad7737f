"""Secure sum: the coordinator learns Σ over sites and nothing of a single one.

Bonawitz et al. 2017 (CCS, "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
Figure 4), the variant against an active server. One session makes one sum:

    exchange          a site answers with                         Bonawitz        module
    query.keys        two X25519 keys of this session, signed     0 AdvertiseKeys  party, wire
                      with the key it is registered by
    query.shares      for every other site, sealed: a share of    1 ShareKeys      sharing
                      its self-mask's seed and of its mask key's;
                      a commitment to each of them, signed
    train.…           its integers + self-mask ± a mask for       2 MaskedInput    quantise, masks
                      every other site
    query.survivors   its signature over who is in the sum        3 Consistency    party
    query.unmask      of each site in the sum its share of the    4 Unmasking      party, collector
                      self-mask's seed, of each that dropped out
                      its share of the mask key's; never both

Pairwise masks cancel in the sum; those of a site that dropped out are made anew from its key, and
the self-masks are taken off, both from at least `threshold` shares (`collector`). A session lives
in memory: a site that restarts has dropped out of it, and a repeated step is another session.

What this holds against: a coordinator that reads all messages, swaps keys, tells sites different
lists or invents sites, alone or together with up to 2·threshold − n − 1 of n sites, learns nothing
of the others but their sum. Keys are checked against a list that came by another way (the start
kit), so it cannot sit in the middle. A site that deals wrong shares, or gives back others than it
was dealt, is named and left out: a share is held against what its dealer has committed to, by the
site that gets it and by the coordinator. What this does not hold against: a site that sends wrong
numbers (bounds are applied by the sites themselves) or masks them with another seed than it deals;
that the sum itself tells something, above all sums of almost the same question over almost the same
sites, which only differential privacy bounds.

Departures from the paper: secrets are shared as seeds of 16 bytes, from which keys of 32 are
derived (half the cost, and no less than X25519's 126 bits); seeds and shares come with commitments
that their dealer has signed; and pairwise masks and signatures are bound to the question, so that
sites which are asked different ones give no sum.
"""
