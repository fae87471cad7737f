"""Studies from the hospital's picture archive (PACS), into a folder of DICOM files.

What to take (`selection`), from where (`address`), how it is asked for (`dicomweb`, `dimse`), where
it goes (`store`), and the loop over it all (`pulling`). Nothing is sent but questions to that PACS.
"""
