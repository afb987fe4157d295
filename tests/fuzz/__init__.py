"""`make fuzz`: every reader of files and flags is given inputs that are nearly right, and has to survive them all.

subjects.py                    the readers: what each is given, what it may answer
record_files.py, npz_files.py, json_trees.py, xml_trees.py, picture_files.py, texts.py
                               valid inputs, and changes to them that keep checksums and syntax right
octets.py                      changes to bytes of any kind
child.py                       runs inputs in a process that may die of them; watched.py watches it
__main__.py                    the command
"""
