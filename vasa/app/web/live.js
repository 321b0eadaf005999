const $ = name => element.querySelector(name);
let peer = null, timer = null, microphone = null;
const say = text => { $('.state').textContent = text; };
const settings = () => { try { return JSON.parse(props.value) || {}; } catch (_) { return {}; } };
const end = () => {
  clearTimeout(timer); if (peer) peer.close(); peer = null;
  if (microphone) microphone.getTracks().forEach(t => t.stop()); microphone = null;
  $('.start').disabled = false; $('.end').disabled = true; $('video').srcObject = null;
};
// no way between browser and server: the page goes on without WebRTC
const fallBack = () => { end(); say(''); trigger('submit'); };
const start = async () => {
  const given = settings(); if (!given.ticket) { say('Choose a portrait and press “Prepare” first.'); return; }
  $('.start').disabled = true; $('.end').disabled = false; say('Asking for the microphone …');
  try {
    microphone = await navigator.mediaDevices.getUserMedia({audio: {echoCancellation: true}});
    peer = new RTCPeerConnection({iceServers: given.ice || []});
    peer.addTransceiver('video', {direction: 'recvonly'});
    microphone.getAudioTracks().forEach(track => peer.addTrack(track, microphone));
    const stream = new MediaStream();
    peer.ontrack = event => {
      if ('jitterBufferTarget' in event.receiver) event.receiver.jitterBufferTarget = 0;
      stream.addTrack(event.track); $('video').srcObject = stream;
    };
    const channel = peer.createDataChannel('words');
    channel.onmessage = event => { const s = JSON.parse(event.data);
      say(s.problem || `${s.fps.toFixed(0)} frames a second, answers after ${s.delay} ms${s.slow ? ', slower than real time' : ''}`); };
    $('video').muted = !$('.echo').checked;
    await peer.setLocalDescription(await peer.createOffer());
    await new Promise(done => { if (peer.iceGatheringState === 'complete') done();
      peer.onicegatheringstatechange = () => { if (peer.iceGatheringState === 'complete') done(); }; setTimeout(done, 800); });
    const answer = await fetch(given.path, {method: 'POST', headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({sdp: peer.localDescription.sdp, type: 'offer', ticket: given.ticket})});
    if (answer.status === 404 || answer.status === 405) { fallBack(); return; }
    if (!answer.ok) throw new Error((await answer.json()).detail || answer.statusText);
    await peer.setRemoteDescription(await answer.json());
    let connected = false;
    timer = setTimeout(() => { if (peer && !connected) fallBack(); }, 10000);
    peer.onconnectionstatechange = () => {
      if (!peer) return;
      if (peer.connectionState === 'connected') connected = true;
      if (!['failed', 'closed'].includes(peer.connectionState)) return;
      if (connected) { say('The connection was lost; prepare and start again.'); end(); } else fallBack();
    };
  } catch (error) { say(error.name === 'NotAllowedError' ? 'The microphone was not allowed.' : String(error.message || error)); end(); }
};
element.addEventListener('click', e => { if (e.target.closest('.start')) start(); if (e.target.closest('.end')) { end(); say('Ended.'); } });
element.addEventListener('change', e => { if (e.target.matches('.echo')) $('video').muted = !e.target.checked; });
