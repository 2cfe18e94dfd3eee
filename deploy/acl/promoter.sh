# `dapo models`, `dapo types add`: topics for new types are made like that of unknown defects, before a pack is in force.
$ACLS --add --allow-principal User:promoter --operation Describe --operation DescribeConfigs --topic inspection. --resource-pattern-type prefixed
$ACLS --add --allow-principal User:promoter --operation Create --topic inspection.defects. --resource-pattern-type prefixed
# `dapo models shadow` reads what the line inspects and what it says of it, in no group, and writes nothing.
$ACLS --add --allow-principal User:promoter --operation Read --topic inspection.results --topic inspection.frames
