-- Forwarding rule of the demo PACS: every MR instance except those that the node sent.
function OnStoredInstance(instanceId, tags, metadata, origin)
  if tags['Modality'] == 'MR' and origin['RemoteAet'] ~= 'EPVSNODE' then
    SendToModality(instanceId, 'epvs')
  end
end
