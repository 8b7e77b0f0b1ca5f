"""What the icons show: the names that at least 30 open icon sets of @iconify/json 2.2.535 draw."""

CONCEPTS = tuple(
    """
    airplane airplay alarm alarm-clock alien align-center align-left align-right ambulance anchor android apple archive
    arrow-down arrow-down-left arrow-down-right arrow-left arrow-right arrow-up arrow-up-left arrow-up-right asterisk at
    atom baby backpack backspace badge balloon ban bank bar-chart barcode baseball basket basketball battery battery-empty
    battery-full bed behance bell bicycle binoculars bitcoin bluetooth bold bolt bomb book book-open bookmark box brain
    briefcase brush bug building bus cake calculator calendar camera car caret-left caret-right cart castle cat chart-bar
    chart-line chart-pie chat check check-circle check-square chevron-down chevron-left chevron-right chevron-up church
    circle clipboard clock close cloud cloud-download cloud-upload code coffee cog command comment compass cookie copy
    copyright cpu credit-card crop crown cube cursor cut dashboard database delete desktop diamond discord divide dna
    document dog dollar door download dribbble drone dropbox droplet ear edit egg eject elevator envelope eraser euro
    expand export eye eye-off facebook factory fast-forward feather female figma file file-code film filter fingerprint
    fire fire-extinguisher fish flag flashlight flask floppy-disk flower folder folder-minus folder-open folder-plus
    forward gamepad gear ghost gift github gitlab glasses globe google graduation-cap grid group guitar hamburger hammer
    hand handshake headphones headset heart helicopter help history home hospital hotel hourglass house id-card image
    inbox infinity info info-circle instagram italic key keyboard label laptop layers leaf lemon lightbulb link linkedin
    list location lock lock-open logout magnet mail male map map-pin megaphone menu message mic microphone microscope
    minus minus-circle mobile monitor moon mountain mouse move music network newspaper note notebook npm package palette
    paper-plane paperclip paragraph pause pause-circle paypal pen pencil person phone pie-chart pill pin pinterest pizza
    plane planet play play-circle plug plus plus-circle power print printer puzzle qr-code question radio rainbow receipt
    reddit redo refresh repeat reply ribbon ring robot rocket rss ruler satellite save school scissors search send server
    settings share shield shield-check ship shop shopping-bag shopping-cart shower shuffle signal skull skype slack
    snowflake sort sparkles speaker spotify square star star-half stethoscope stop stop-circle stopwatch strikethrough sun
    sunrise sunset syringe t-shirt table tablet tag target taxi telegram telescope tent terminal test-tube text
    thermometer thumbs-down thumbs-up ticket tiktok timer toilet tornado train trash tree triangle trophy truck tumblr tv
    twitter umbrella underline undo unlock upload usb user users video vimeo voicemail volume volume-mute volume-off
    volume-up wallet warning watch webcam whatsapp wheelchair wifi wind window windows wordpress wrench x youtube zoom-in
    zoom-out
    """.split()  # noqa: SIM905, a list of quoted words is hard to read
)
