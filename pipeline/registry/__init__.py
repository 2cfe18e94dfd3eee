"""The registry of prompt packs in a bucket, and how a line is moved from one to the next.

pointers.py   champion, challenger, previous and who is promoting: one small object, moved by compare-and-set
registry.py   packs, pointers, audit lines, gate records and uses of test sets, by their names in the bucket
lease.py      one promoter at a time
evidence.py   why a pack may become champion
promote.py    model servers first, then the pointer; and the way back
servers.py    a model server as a promotion needs it
follow.py     an Infer that answers with the champion, whichever that is
keep.py       model servers kept at the champion
shadow.py     a challenger beside the champion on live frames
"""
