# `dapo archive`: results and their frames to the object store; writes to no topic. Its offsets travel in transactions archive-SLOT.
$ACLS --add --allow-principal User:archiver --operation Read --topic inspection.results --topic inspection.frames
$ACLS --add --allow-principal User:archiver --operation Read --group archive
$ACLS --add --allow-principal User:archiver --operation Write --operation Describe --transactional-id archive- --resource-pattern-type prefixed
