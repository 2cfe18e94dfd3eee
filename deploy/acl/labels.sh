# `dapo label`, `dapo labels`: what people say a result really shows. Positions as of the feeder, so it may read labels, too;
# `dapo labels sync` (group "dapo-labels-sync") needs no more.
$ACLS --add --allow-principal User:labels --operation Write --operation Read --topic inspection.labels
$ACLS --add --allow-principal User:labels --operation Read --group dapo-label --resource-pattern-type prefixed
$ACLS --add --allow-principal User:labels --operation Write --operation Describe --transactional-id dapo-label --resource-pattern-type prefixed
