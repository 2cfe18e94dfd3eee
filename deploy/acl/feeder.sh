# `dapo feed`: frames onto their topic. It keeps its position as an offset there, which a broker lets none do who may not read.
# A name given with --name must begin with "dapo-feed-", as the names that it makes itself.
$ACLS --add --allow-principal User:feeder --operation Write --operation Read --topic inspection.frames
$ACLS --add --allow-principal User:feeder --operation Read --group dapo-feed- --resource-pattern-type prefixed
$ACLS --add --allow-principal User:feeder --operation Write --operation Describe --transactional-id dapo-feed- --resource-pattern-type prefixed
