-- The forwarding rule of the demo PACS: every MR instance that the node itself did not send.
function OnStoredInstance(instanceId, tags, metadata, origin)
  if tags['Modality'] == 'MR' and origin['RemoteAet'] ~= 'EPVSNODE' then
    SendToModality(instanceId, 'epvs')
  end
end
