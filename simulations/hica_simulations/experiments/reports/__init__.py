"""What is read in reports, held against what people have indexed: the Indiana collection.

3,851 reports of chest films with MeSH headings (Demner-Fushman et al., 2016).
"""
