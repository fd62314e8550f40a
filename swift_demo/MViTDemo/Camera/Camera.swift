@preconcurrency import AVFoundation
import MViTCoreML
import MViTKit

/// The back camera as streams of upright 32BGRA frames.
///
/// It does what it is told; when to start and stop is ``CaptureLifecycle``'s business, which hears of
/// everything through `report`.
///
/// Unchecked: the output, the continuation and what is set up are touched on the queue alone; the
/// preview layer only reads the session, which AVFoundation allows from any thread.
final class Camera: NSObject, @unchecked Sendable {
  let session = AVCaptureSession()
  private let output = AVCaptureVideoDataOutput()
  private let queue = DispatchQueue(label: "camera", qos: .userInitiated)
  private let report: @Sendable (CaptureLifecycle.Event) -> Void
  private var continuation: AsyncStream<Photo>.Continuation?
  private var isObserved = false

  /// A camera that is not set up yet.
  ///
  /// - Parameter report: told what happens, on any thread.
  init(report: @escaping @Sendable (CaptureLifecycle.Event) -> Void) {
    self.report = report
    super.init()
  }

  /// The camera that is used; `nil` in the simulator.
  var device: AVCaptureDevice? {
    AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: .back)
  }

  /// Whether the app may use the camera; asks the user the first time.
  static func isAllowed() async -> Bool {
    switch AVCaptureDevice.authorizationStatus(for: .video) {
    case .authorized: true
    case .notDetermined: await AVCaptureDevice.requestAccess(for: .video)
    case .restricted, .denied: false
    @unknown default: false
    }
  }

  /// Starts the session, and reports that it runs or that there is no camera.
  func start() {
    queue.async {
      guard self.configure() else { return self.report(.unavailable) }
      self.session.startRunning()
      // An interrupted session starts later; the system reports that.
      if self.session.isRunning { self.report(.started) }
    }
  }

  /// Stops the session.
  func stop() {
    queue.async { self.session.stopRunning() }
  }

  /// The frames from now on, of which one waits at most: the newest. Ends an earlier stream.
  func frames() -> AsyncStream<Photo> {
    let (stream, continuation) = AsyncStream.makeStream(
      of: Photo.self, bufferingPolicy: .bufferingNewest(1))
    queue.async {
      self.continuation?.finish()
      self.continuation = continuation
    }
    return stream
  }

  /// Turns the frames upright for how the device is held, in degrees.
  func rotateFrames(by angle: CGFloat) {
    queue.async {
      guard let connection = self.output.connection(with: .video),
        connection.isVideoRotationAngleSupported(angle)
      else { return }
      connection.videoRotationAngle = angle
    }
  }

  /// Sets the session up, once; a camera that could not be opened is tried again the next time.
  private func configure() -> Bool {
    guard session.inputs.isEmpty else { return true }
    guard let device, let input = try? AVCaptureDeviceInput(device: device) else { return false }
    observe()
    session.beginConfiguration()
    defer { session.commitConfiguration() }
    session.sessionPreset = .hd1280x720
    output.videoSettings = [
      kCVPixelBufferPixelFormatTypeKey as String: Int(kCVPixelFormatType_32BGRA)
    ]
    output.alwaysDiscardsLateVideoFrames = true
    output.setSampleBufferDelegate(self, queue: queue)
    guard session.canAddInput(input), session.canAddOutput(output) else { return false }
    session.addInput(input)
    session.addOutput(output)
    // On an iPad the camera may go on beside another app.
    if session.isMultitaskingCameraAccessSupported {
      session.isMultitaskingCameraAccessEnabled = true
    }
    return true
  }

  private func observe() {
    guard !isObserved else { return }
    isObserved = true
    let report = report
    let center = NotificationCenter.default
    // The observers live as long as the app, and so does its one camera.
    _ = center.addObserver(
      forName: AVCaptureSession.wasInterruptedNotification, object: session, queue: nil
    ) { report(.interrupted(Self.interruption($0))) }
    _ = center.addObserver(
      forName: AVCaptureSession.interruptionEndedNotification, object: session, queue: nil
    ) { _ in report(.interruptionEnded) }
    _ = center.addObserver(
      forName: AVCaptureSession.runtimeErrorNotification, object: session, queue: nil
    ) { notification in
      let error = notification.userInfo?[AVCaptureSessionErrorKey] as? AVError
      report(.failed(isReset: error?.code == .mediaServicesWereReset))
    }
  }

  private static func interruption(_ notification: Notification) -> CaptureLifecycle.Interruption {
    let number = notification.userInfo?[AVCaptureSessionInterruptionReasonKey] as? Int
    switch number.flatMap(AVCaptureSession.InterruptionReason.init(rawValue:)) {
    case .videoDeviceNotAvailableInBackground: return .background
    case .videoDeviceInUseByAnotherClient: return .inUseElsewhere
    case .videoDeviceNotAvailableWithMultipleForegroundApps: return .multitasking
    case .videoDeviceNotAvailableDueToSystemPressure: return .systemPressure
    default: return .other
    }
  }
}

extension Camera: AVCaptureVideoDataOutputSampleBufferDelegate {
  func captureOutput(
    _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer,
    from connection: AVCaptureConnection
  ) {
    guard let buffer = sampleBuffer.imageBuffer else { return }
    continuation?.yield(Photo(buffer))
  }
}
