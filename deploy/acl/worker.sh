# `dapo worker`: frames to verdicts. Group "inspect"; its transactional ids are inspect-SLOT.
# At its start it looks whether all topics are there, so it may describe them; DescribeConfigs shows settings, no message.
$ACLS --add --allow-principal User:worker --operation Describe --operation DescribeConfigs --topic inspection. --resource-pattern-type prefixed
$ACLS --add --allow-principal User:worker --operation Read --topic inspection.frames
$ACLS --add --allow-principal User:worker --operation Read --group inspect
$ACLS --add --allow-principal User:worker --operation Write --topic inspection.results --topic inspection.deadletter --topic inspection.status
$ACLS --add --allow-principal User:worker --operation Write --topic inspection.defects. --resource-pattern-type prefixed
$ACLS --add --allow-principal User:worker --operation Write --operation Describe --transactional-id inspect- --resource-pattern-type prefixed
