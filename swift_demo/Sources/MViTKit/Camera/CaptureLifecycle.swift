/// What a camera's session has to do when the app, the user and the system change their minds.
///
/// Pure: events go in, what to do comes out. A session that the system interrupts or stops is
/// brought back when it may run again; nothing is predicted in the background, where the GPU refuses
/// work.
public struct CaptureLifecycle: Hashable, Sendable {
  /// Why the system took the camera away.
  public enum Interruption: Hashable, Sendable {
    /// The app is in the background.
    case background
    /// Another app uses the camera.
    case inUseElsewhere
    /// Several apps share the screen and this one may not use the camera then.
    case multitasking
    /// The device is too hot.
    case systemPressure
    /// Anything else.
    case other
  }

  /// What happened.
  public enum Event: Hashable, Sendable {
    /// A screen with the camera's picture appeared or went away.
    case wanted(Bool)
    /// The app became active or left the foreground for good; not the moment in between.
    case foreground(Bool)
    /// The session runs.
    case started
    /// There is no camera, or the session cannot be set up.
    case unavailable
    /// The system took the camera.
    case interrupted(Interruption)
    /// The system gave it back.
    case interruptionEnded
    /// The session stopped with an error; `isReset` where the media services were reset, after which
    /// it may be started again.
    case failed(isReset: Bool)
  }

  /// What to do with the session.
  public enum Action: Hashable, Sendable {
    case none, start, stop
  }

  /// What to show.
  public enum State: Hashable, Sendable {
    /// Nobody wants the camera, or the app is in the background.
    case off
    /// It is about to run.
    case starting
    /// Frames come.
    case running
    /// The system keeps it; it comes back by itself.
    case interrupted(Interruption)
    /// There is none.
    case unavailable
    /// It failed, more than once in a row.
    case failed
  }

  /// What to show.
  public private(set) var state = State.off
  /// How often a failed session is started again before it counts as failed.
  public let retries: Int

  private var isWanted = false
  private var isInForeground = true
  private var failures = 0

  /// A camera that nobody wants yet.
  public init(retries: Int = 2) {
    self.retries = retries
  }

  /// Whether a frame may be given to a model now.
  public var mayPredict: Bool { state == .running && isInForeground }

  /// Takes an event.
  ///
  /// - Returns: what to do with the session.
  public mutating func handle(_ event: Event) -> Action {
    switch event {
    case .wanted(let isWanted):
      self.isWanted = isWanted
      failures = 0
      return settle()
    case .foreground(let isInForeground):
      guard self.isInForeground != isInForeground else { return .none }
      self.isInForeground = isInForeground
      failures = 0
      return settle()
    case .started:
      if state == .starting { state = .running }
      return .none
    case .unavailable:
      guard state != .off else { return .none }
      state = .unavailable
      return .none
    case .interrupted(let reason):
      guard isOn else { return .none }
      state = .interrupted(reason)
      return .none
    case .interruptionEnded:
      guard case .interrupted = state else { return .none }
      failures = 0
      // The system brings back a session that was not stopped; asking for it once more is harmless.
      state = .starting
      return .start
    case .failed(let isReset):
      guard isOn else { return .none }
      failures += 1
      guard isReset || failures <= retries else {
        state = .failed
        return .stop
      }
      state = .starting
      return .start
    }
  }

  private var isOn: Bool {
    switch state {
    case .starting, .running, .interrupted: true
    case .off, .unavailable, .failed: false
    }
  }

  private mutating func settle() -> Action {
    switch (isWanted && isInForeground, isOn) {
    case (true, false):
      state = .starting
      return .start
    case (false, true):
      state = .off
      return .stop
    case (false, false):
      state = .off
      return .none
    case (true, true):
      return .none
    }
  }
}
