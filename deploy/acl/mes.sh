# The MES and whatever else only reads: `dapo watch`, the subscribers of docs/mes.md. Its groups begin with "mes". It sees no frame.
$ACLS --add --allow-principal User:mes --operation Read --topic inspection.results --topic inspection.parts --topic inspection.status
$ACLS --add --allow-principal User:mes --operation Read --topic inspection.defects. --resource-pattern-type prefixed
$ACLS --add --allow-principal User:mes --operation Read --group mes --resource-pattern-type prefixed
