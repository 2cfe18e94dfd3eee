# `dapo parts`: the views of a part to its one verdict. It reads its own topic back after a restart.
$ACLS --add --allow-principal User:parts --operation Read --topic inspection.results
$ACLS --add --allow-principal User:parts --operation Read --operation Write --topic inspection.parts
$ACLS --add --allow-principal User:parts --operation Read --group parts --group parts-read-back
$ACLS --add --allow-principal User:parts --operation Write --operation Describe --transactional-id parts- --resource-pattern-type prefixed
